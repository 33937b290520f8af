"""Validates a checkpoint: reads what torch's optimizer or ours wrote, refuses anything else."""

import numbers
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.recovery import Recovered
from lrfused.groups.arguments import with_group
from lrfused.groups.inputs import Inputs, fits, input_values
from lrfused.groups.shared_counters import KEYS, counters_in
from lrfused.groups.stored import Stored, schedule_data, stored_in
from lrfused.groups.text import is_on
from lrfused.memory.checks import check_moment
from lrfused.rules import RULES, UpdateRule
from lrfused.rules.operand import always as unconditional
from lrfused.schedules import Schedule
from lrfused.schedules.payloads import INPUT_DTYPES
from lrfused.settings.cells import as_number, number_or_nan, pair, read_group
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot, is_usable
from lrfused.state.device_state import Field
from lrfused.state.masks import KEY as MASK
from lrfused.state.operands import own_operands_in, widened
from lrfused.state.step_counts import Numbers, States, carried_in, carried_keys, is_count

GroupList = list[dict[str, Any]]


@dataclass
class Loaded:
    """A checked checkpoint, keyed by this optimizer's parameters."""

    groups: GroupList
    states: dict[Any, Any]  # by parameter, and foreign keys as they were
    counts: list[int]
    carried: list[Numbers]
    counters: dict[Field, float]
    stored: list[Stored | None]
    schedules: list[dict[Slot, Schedule]]  # stored ones that will be used
    inputs: list[tuple[Tensor, float]]
    masks: dict[Tensor, Tensor]
    recovered: Recovered


def check(
    books: Bookkeeping, groups: GroupList, saved: dict[str, Any], load_schedules: bool
) -> Loaded:
    """Read a checkpoint of this optimizer, or of the torch optimizer that it replaces.

    Raises:
        ValueError: it does not fit this optimizer, or contains an invalid value.
    """
    saved_groups = _check_shape(groups, saved)
    rule = books.rule
    states = _check_states(rule, groups, saved_groups, saved["state"])
    try:
        masks = books.masks.found_in(states, _params(groups), books.is_captured)
        counters, stored = counters_in(saved_groups), stored_in(saved_groups)
    except ValueError as error:
        raise ValueError(f"state_dict: {error}") from error
    for param in _params(groups):
        states.get(param, {}).pop(MASK, None)
    _check_optimizer(rule, stored)
    present = Inputs(books.hyper.rows)
    schedules = [
        _schedules(g, one, books, present) if load_schedules and one else {}
        for g, one in enumerate(stored)
    ]
    new_groups, options = [], []
    for g, both in enumerate(zip(groups, saved_groups, strict=True)):
        new_groups.append(_new_group(rule, g, *both))
        options.append(with_group(rule, books.hyper.rows[g], new_groups[g]))
        cells = zip(Slot, books.hyper.rows[g].cells, strict=True)
        mirrors = {slot for slot, cell in cells if cell.schedule is not None} | schedules[g].keys()
        _check_group(rule, options[g], g, groups[g], new_groups[g], mirrors)
    counts = _counts(states, groups) if rule.counts else [0 for _ in _params(groups)]
    step = max([int(counters.get(Field.STEP, 0)), *counts])
    recovered = Recovered(rule, options, new_groups, books.hyper.rows, step, schedules)
    carried = _carried(rule, states, groups, counts, recovered)
    try:
        inputs = input_values(books.hyper.rows, stored, schedules)
    except ValueError as error:
        raise ValueError(f"state_dict: {error}") from error
    return Loaded(
        new_groups, states, counts, carried, counters, stored, schedules, inputs, masks, recovered
    )


def _check_shape(groups: GroupList, saved: dict[str, Any]) -> GroupList:
    """The saved groups, if their number and sizes fit this optimizer."""
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


def _check_optimizer(rule: UpdateRule, stored: list[Stored | None]) -> None:
    for g, one in enumerate(stored):
        if one is not None and one.optimizer != rule.name:
            raise ValueError(
                f"state_dict: group {g} was saved by the optimizer {one.optimizer!r}, "
                f"this one is {rule.name!r}"
            )


def _check_states(
    rule: UpdateRule, groups: GroupList, saved: GroupList, states: dict[Any, Any]
) -> dict[Any, Any]:
    """The states by parameter; keys of no parameter are kept unchanged, as torch does."""
    keys = list(chain.from_iterable(g["params"] for g in saved))
    places = dict(zip(keys, chain.from_iterable(g["params"] for g in groups), strict=True))
    if len(places) != len(keys):
        raise ValueError(f"state_dict: a parameter stands twice in the groups: {keys!r:.80}")
    checked: dict[Any, Any] = {}
    for key, state in states.items():
        if key in places:
            checked[places[key]] = _check_state(rule, key, places[key], state)
        elif isinstance(key, int):
            raise ValueError(f"state_dict: state of {key!r:.40} belongs to no parameter")
        else:
            checked[key] = state
    return checked


def _check_state(rule: UpdateRule, key: Any, param: Tensor, state: Any) -> dict[str, Any]:
    """The checked state of a parameter, with tensors on its device."""
    if not isinstance(state, dict):
        raise ValueError(f"state_dict: state of parameter {key!r:.40} must be a dictionary")
    if not state:
        return {}
    always = {operand.key for operand in rule.operands if operand.is_used is unconditional}
    if state.keys() == {MASK}:
        return dict(state)
    if missing := (always | ({"step"} if rule.counts else set())) - state.keys():
        raise ValueError(f"state_dict: state of parameter {key} lacks {sorted(missing)}")
    nearest = max(RULES, key=lambda r: (len(state.keys() & set(r.keys)), r is rule))
    if nearest is not rule:
        raise ValueError(
            f"state_dict: state of parameter {key} has {sorted(state.keys() & set(nearest.keys))}: "
            f"it is that of another optimizer, this one is {rule.name!r}"
        )
    checked: dict[str, Any] = {"step": _count(key, state["step"])} if rule.counts else {}
    for name, value in state.items():
        if name in rule.state_keys and value is None and name not in always:
            continue  # torch's SGD stores None for a missing buffer
        if name in rule.state_keys:
            device = value.device if isinstance(value, Tensor) else param.device
            check_moment(f"state_dict: state of parameter {key}: {name}", value, param, device)
            value = widened(rule, name, value)
        if name not in checked:
            moves = isinstance(value, Tensor) and name != MASK  # a mask is not checked yet
            checked[name] = value.to(param.device) if moves else value
    return checked


def _count(key: Any, step: Any) -> float:
    count = number_or_nan(step)
    if not is_count(count) or count != int(count):
        raise ValueError(f"state_dict: step of parameter {key} must be a count, got {step!r:.80}")
    return count


def _new_group(
    rule: UpdateRule, g: int, group: dict[str, Any], other: dict[str, Any]
) -> dict[str, Any]:
    """The group after loading; keys that the checkpoint lacks keep their values."""
    ours = ("params", *KEYS)
    new = {**group, **deepcopy({k: v for k, v in other.items() if k not in ours})}
    for key in {slot.key for slot in rule.hyperparameters if slot.place is not None}:
        try:
            new[key] = pair(new[key])
        except (TypeError, ValueError):
            raise ValueError(
                f"state_dict: {key} of group {g} must be a pair, got {new[key]!r:.80}"
            ) from None
    return new


def _check_group(
    rule: UpdateRule,
    options: GroupOptions,
    g: int,
    group: dict[str, Any],
    new: dict[str, Any],
    mirrors: set[Slot],
) -> None:
    """Refuse invalid values; those of scheduled slots are not used, as mirrors are rewritten."""
    for slot in rule.hyperparameters:
        value, name = as_number(read_group(new, slot)), slot.argument
        single = isinstance(value, Tensor) and value.numel() == 1 and value.dtype in INPUT_DTYPES
        if not single and (not isinstance(value, numbers.Real) or isinstance(value, bool)):
            raise ValueError(f"state_dict: {name} of group {g} must be a number, got {value!r:.80}")
        if slot not in mirrors and not is_usable(
            rule.range_of(slot, options), number_or_nan(value)
        ):
            raise ValueError(f"state_dict: {name} of group {g} cannot be {value!r:.80}")
    lr = group["lr"]
    if isinstance(lr, Tensor) and not fits(number_or_nan(new["lr"]), lr):
        raise ValueError(f"state_dict: lr of group {g} cannot be {new['lr']!r:.80} in {lr.dtype}")
    for name in (*rule.switches, "maximize"):
        if not isinstance(new[name], bool):
            raise ValueError(
                f"state_dict: {name} of group {g} must be True or False, got {new[name]!r:.80}"
            )


def _schedules(g: int, stored: Stored, books: Bookkeeping, present: Inputs) -> dict[Slot, Schedule]:
    """The stored schedules, reading the present inputs; those of unused options are left out."""
    made = {}
    for slot in stored.schedules:
        if slot.is_optional and not is_on(slot, books.group_options[g], books.options):
            continue
        try:
            made[slot] = Schedule.from_dict(schedule_data(stored, slot), present.near(g, slot))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"state_dict: schedule of {slot.name.lower()} of group {g}: {error}"
            ) from error
    return made


def _counts(states: States, groups: GroupList) -> list[int]:
    return [int(states.get(param, {}).get("step", 0)) for param in _params(groups)]


def _params(groups: GroupList) -> list[Tensor]:
    return [param for group in groups for param in group["params"]]


def _carried(
    rule: UpdateRule,
    states: States,
    groups: GroupList,
    counts: list[int],
    recovered: Recovered,
) -> list[Numbers]:
    """The carried numbers of each parameter, which are removed from the states."""
    numbers = []
    params = [(g, param) for g, group in enumerate(groups) for param in group["params"]]
    for (g, param), count in zip(params, counts, strict=True):
        state = states.get(param, {})
        carried = {key: state.pop(key) for key in carried_keys(rule) if key in state}
        operands = [operand for _, operand in own_operands_in(rule, state)]
        try:
            found = carried_in(rule, carried, count, operands)
        except ValueError as error:
            raise ValueError(f"state_dict: {error}") from error
        numbers.append(recovered(g, count, bool(operands)) if found is None else found)
    return numbers
