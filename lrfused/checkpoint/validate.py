"""Validates a checkpoint: reads what torch's optimizer or ours wrote, refuses anything else."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lrfused.checkpoint.groups import check_group, new_group, stored_schedules
from lrfused.checkpoint.states import carried_numbers, check_states, counts_in
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.recovery import Recovered
from lrfused.groups.arguments import with_group
from lrfused.groups.inputs import input_values
from lrfused.groups.shared_counters import counters_in
from lrfused.groups.stored import Stored, stored_in
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.settings.slots import SLOTS, Slot
from lrfused.state.device_state import Field
from lrfused.state.masks import KEY as MASK
from lrfused.state.step_counts import Numbers

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
    states = check_states(rule, groups, saved_groups, saved["state"])
    try:
        masks = books.masks.found_in(states, _params(groups), books.is_captured)
        counters, stored = counters_in(saved_groups), stored_in(saved_groups)
    except ValueError as error:
        raise ValueError(f"state_dict: {error}") from error
    for param in _params(groups):
        states.get(param, {}).pop(MASK, None)
    _check_optimizer(rule, stored)
    schedules = stored_schedules(books, stored if load_schedules else [None for _ in stored])
    new_groups, options = [], []
    for g, both in enumerate(zip(groups, saved_groups, strict=True)):
        new_groups.append(new_group(rule, g, *both))
        options.append(with_group(rule, books.hyper.rows[g], new_groups[g]))
        cells = zip(SLOTS, books.hyper.rows[g].cells, strict=True)
        mirrors = {slot for slot, cell in cells if cell.schedule is not None} | schedules[g].keys()
        check_group(rule, options[g], g, groups[g], new_groups[g], mirrors)
    counts = counts_in(states, groups) if rule.counts else [0 for _ in _params(groups)]
    step = max([int(counters.get(Field.STEP, 0)), *counts])
    recovered = Recovered(rule, options, new_groups, books.hyper.rows, step, schedules)
    carried = carried_numbers(rule, states, groups, counts, recovered)
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


def _params(groups: GroupList) -> list[Tensor]:
    return [param for group in groups for param in group["params"]]
