"""A checkpoint, checked: read whatever torch's AdamW or ours wrote, refuse the rest."""

import numbers
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor

from lrfused.backends.reference.scalars import usable
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.products import Recomputed
from lrfused.groups.carried import KEYS, counters_in
from lrfused.groups.inputs import Inputs, fits, input_values
from lrfused.groups.stored import Stored, schedule_data, stored_in
from lrfused.groups.text import is_limited
from lrfused.memory.checks import check_moment
from lrfused.schedules import Schedule
from lrfused.schedules.expression import INPUT_DTYPES
from lrfused.settings.cells import (
    IN_GROUPS,
    LIMITS,
    argument_name,
    as_number,
    number_or_nan,
    pair,
    read_group,
)
from lrfused.settings.options import Slot
from lrfused.state.device_state import Field
from lrfused.state.moments import MOMENTS
from lrfused.state.step_counts import PRODUCT_COUNT, PRODUCTS, Pair, States, is_count, products_in

GroupList = list[dict[str, Any]]


@dataclass
class Loaded:
    """A checked checkpoint, in terms of this optimizer's parameters."""

    groups: GroupList
    states: dict[Any, Any]  # of parameters, and whatever else stands in a state
    counts: list[int]
    products: list[Pair]
    counters: dict[Field, float]
    stored: list[Stored | None]
    schedules: list[dict[Slot, Schedule]]  # that are taken over
    inputs: list[tuple[Tensor, float]]
    recomputed: Recomputed


def check(
    books: Bookkeeping, groups: GroupList, saved: dict[str, Any], load_schedules: bool
) -> Loaded:
    """Read a checkpoint of ours or of torch's AdamW.

    Raises:
        ValueError: it does not fit this optimizer, or a value in it cannot be.
    """
    saved_groups = _check_shape(groups, saved)
    states = _check_states(groups, saved_groups, saved["state"])
    try:
        counters, stored = counters_in(saved_groups), stored_in(saved_groups)
    except ValueError as error:
        raise ValueError(f"state_dict: {error}") from error
    present = Inputs(books.hyper.rows)
    schedules = [
        _schedules(g, one, books, present) if load_schedules and one else {}
        for g, one in enumerate(stored)
    ]
    new_groups = []
    for g, both in enumerate(zip(groups, saved_groups, strict=True)):
        new_groups.append(_new_group(g, *both))
        cells = zip(Slot, books.hyper.rows[g].cells, strict=True)
        mirrors = {slot for slot, cell in cells if cell.schedule is not None} | schedules[g].keys()
        _check_group(g, groups[g], new_groups[g], mirrors)
    counts = _counts(states, groups)
    step = max([int(counters.get(Field.STEP, 0)), *counts])
    recomputed = Recomputed(new_groups, books.hyper.rows, step, schedules)
    products = _products(states, groups, counts, recomputed)
    inputs = input_values(books.hyper.rows, stored, schedules)
    return Loaded(
        new_groups, states, counts, products, counters, stored, schedules, inputs, recomputed
    )


def _check_shape(groups: GroupList, saved: dict[str, Any]) -> GroupList:
    """The saved groups, if they can be those of this optimizer."""
    for key, kind in (("state", dict), ("param_groups", list)):
        if not isinstance(saved.get(key), kind):
            raise ValueError(f"state_dict: {key!r} must be a {kind.__name__}")
    saved_groups: GroupList = saved["param_groups"]
    if len(groups) != len(saved_groups):
        raise ValueError(
            f"state_dict: has {len(saved_groups)} parameter groups, the optimizer {len(groups)}"
        )
    for g, (group, other) in enumerate(zip(groups, saved_groups, strict=True)):
        if not isinstance(other, dict) or not isinstance(other.get("params"), list):
            raise ValueError(f"state_dict: group {g} has no list 'params'")
        if len(group["params"]) != len(other["params"]):
            raise ValueError(
                f"state_dict: group {g} has {len(other['params'])} parameters, "
                f"the optimizer's {len(group['params'])}"
            )
    return saved_groups


def _check_states(groups: GroupList, saved: GroupList, states: dict[Any, Any]) -> dict[Any, Any]:
    """The states by parameter; what belongs to no parameter is kept as it is, as torch does."""
    keys = list(chain.from_iterable(g["params"] for g in saved))
    places = dict(zip(keys, chain.from_iterable(g["params"] for g in groups), strict=True))
    if len(places) != len(keys):
        raise ValueError(f"state_dict: a parameter stands twice in the groups: {keys!r:.80}")
    checked: dict[Any, Any] = {}
    for key, state in states.items():
        if key in places:
            checked[places[key]] = _check_state(key, places[key], state)
        elif isinstance(key, int):
            raise ValueError(f"state_dict: state of {key!r:.40} belongs to no parameter")
        else:
            checked[key] = state
    return checked


def _check_state(key: Any, param: Tensor, state: Any) -> dict[str, Any]:
    """The state of a parameter, with tensors on its device."""
    if not isinstance(state, dict):
        raise ValueError(f"state_dict: state of parameter {key!r:.40} must be a dictionary")
    if not state:
        return {}
    if missing := {"step", *MOMENTS[:2]} - state.keys():
        raise ValueError(f"state_dict: state of parameter {key} lacks {sorted(missing)}")
    step = state["step"]
    count = number_or_nan(step)
    if not is_count(count) or count != int(count):
        raise ValueError(f"state_dict: step of parameter {key} must be a count, got {step!r:.80}")
    checked: dict[str, Any] = {"step": count}
    for name, value in state.items():
        if name in MOMENTS:
            device = value.device if isinstance(value, Tensor) else param.device
            check_moment(f"state_dict: state of parameter {key}: {name}", value, param, device)
        if name != "step":
            checked[name] = value.to(param.device) if isinstance(value, Tensor) else value
    return checked


def _new_group(g: int, group: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The group as it will be; what an older checkpoint does not have stays."""
    ours = ("params", *KEYS)
    new = {**group, **deepcopy({k: v for k, v in other.items() if k not in ours})}
    try:
        new["betas"] = pair(new["betas"])
    except (TypeError, ValueError):
        raise ValueError(
            f"state_dict: betas of group {g} must be a pair, got {new['betas']!r:.80}"
        ) from None
    return new


def _check_group(g: int, group: dict[str, Any], new: dict[str, Any], mirrors: set[Slot]) -> None:
    """Refuse values that cannot be; a schedule's mirror is written anew, whatever was stored."""
    for slot in IN_GROUPS:
        value, name = as_number(read_group(new, slot)), argument_name(slot)
        single = isinstance(value, Tensor) and value.numel() == 1 and value.dtype in INPUT_DTYPES
        if not (single or isinstance(value, numbers.Real)):
            raise ValueError(f"state_dict: {name} of group {g} must be a number, got {value!r:.80}")
        if slot not in mirrors and not usable(slot, number_or_nan(value)):
            raise ValueError(f"state_dict: {name} of group {g} cannot be {value!r:.80}")
    lr = group["lr"]
    if isinstance(lr, Tensor) and not fits(number_or_nan(new["lr"]), lr):
        raise ValueError(f"state_dict: lr of group {g} cannot be {new['lr']!r:.80} in {lr.dtype}")
    for name in ("amsgrad", "maximize"):
        if not isinstance(new[name], bool):
            raise ValueError(
                f"state_dict: {name} of group {g} must be True or False, got {new[name]!r:.80}"
            )


def _schedules(g: int, stored: Stored, books: Bookkeeping, present: Inputs) -> dict[Slot, Schedule]:
    """The stored schedules, with the inputs that there are, where something follows them."""
    made = {}
    for slot in stored.schedules:
        if slot in LIMITS and not is_limited(slot, books.group_options[g], books.options):
            continue
        try:
            made[slot] = Schedule.from_dict(schedule_data(stored, slot), present.near(g, slot))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"state_dict: schedule of {slot.name.lower()} of group {g}: {error}"
            ) from error
    return made


def _counts(states: States, groups: GroupList) -> list[int]:
    params = chain.from_iterable(group["params"] for group in groups)
    return [int(states.get(param, {}).get("step", 0)) for param in params]


def _products(
    states: States, groups: GroupList, counts: list[int], recomputed: Recomputed
) -> list[Pair]:
    """The products of each parameter's betas; they are taken out of the states."""
    products = []
    params = [(g, param) for g, group in enumerate(groups) for param in group["params"]]
    for (g, param), count in zip(params, counts, strict=True):
        state = states.get(param, {})
        carried = {key: state.pop(key) for key in (PRODUCT_COUNT, *PRODUCTS) if key in state}
        try:
            found = products_in(carried, count)
        except ValueError as error:
            raise ValueError(f"state_dict: {error}") from error
        products.append(recomputed(g, count) if found is None else found)
    return products
