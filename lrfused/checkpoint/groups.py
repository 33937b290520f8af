"""Checks the groups in a checkpoint: numbers, switches, schedules."""

import numbers
from copy import deepcopy
from typing import Any

from torch import Tensor

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.groups.inputs import Inputs, fits
from lrfused.groups.shared_counters import KEYS
from lrfused.groups.stored import Stored, schedule_data
from lrfused.groups.text import is_on
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.schedules.payloads import INPUT_DTYPES
from lrfused.settings.cells import as_number, number_or_nan, pair, read_group
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot, is_usable

NOT_LOADED = {"params", *KEYS}  # keys of a group
IMMUTABLE = {float, int, bool, str, type(None)}


def new_group(
    rule: UpdateRule, g: int, group: dict[str, Any], other: dict[str, Any]
) -> dict[str, Any]:
    """The group after loading; keys that the checkpoint lacks keep their values."""
    new = {**group, **{k: _copy(v) for k, v in other.items() if k not in NOT_LOADED}}
    for key in {slot.key for slot in rule.hyperparameters if slot.place is not None}:
        try:
            new[key] = pair(new[key])
        except (TypeError, ValueError):
            raise ValueError(
                f"state_dict: {key} of group {g} must be a pair, got {new[key]!r:.80}"
            ) from None
    return new


def _copy(value: Any) -> Any:
    """A deep copy; of numbers and pairs of numbers, which nearly all values are, themselves."""
    parts = value if type(value) is tuple else (value,)
    return value if all(type(part) in IMMUTABLE for part in parts) else deepcopy(value)


def check_group(
    rule: UpdateRule,
    options: GroupOptions,
    g: int,
    group: dict[str, Any],
    new: dict[str, Any],
    mirrors: set[Slot],
) -> None:
    """Refuse invalid values; those of scheduled slots are not used, as mirrors are rewritten."""
    for slot in rule.hyperparameters:
        value = as_number(read_group(new, slot))
        if not _is_number(value):
            raise ValueError(
                f"state_dict: {slot.argument} of group {g} must be a number, got {value!r:.80}"
            )
        if slot not in mirrors and not is_usable(
            rule.range_of(slot, options), number_or_nan(value)
        ):
            raise ValueError(f"state_dict: {slot.argument} of group {g} cannot be {value!r:.80}")
    lr = group["lr"]
    if isinstance(lr, Tensor) and not fits(number_or_nan(new["lr"]), lr):
        raise ValueError(f"state_dict: lr of group {g} cannot be {new['lr']!r:.80} in {lr.dtype}")
    for name in (*rule.switches, "maximize"):
        if not isinstance(new[name], bool):
            raise ValueError(
                f"state_dict: {name} of group {g} must be True or False, got {new[name]!r:.80}"
            )


def _is_number(value: Any) -> bool:
    """True for a real number, or a tensor of one element that an input may have."""
    if type(value) is float:  # the usual case, fast
        return True
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.dtype in INPUT_DTYPES
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def stored_schedules(books: Bookkeeping, stored: list[Stored | None]) -> list[dict[Slot, Schedule]]:
    """The stored schedules of each group, reading the present inputs.

    Those of unused options are left out; equal ones without inputs are one object.

    Raises:
        ValueError: a schedule is damaged, or reads an input that there is not.
    """
    present = Inputs(books.hyper.rows)
    made: dict[str, Schedule] = {}

    def schedule(g: int, one: Stored, slot: Slot) -> Schedule:
        text = one.schedules[slot]
        if text in made:
            return made[text]
        try:
            found = Schedule.from_dict(schedule_data(one, slot), present.near(g, slot))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"state_dict: schedule of {slot.name.lower()} of group {g}: {error}"
            ) from error
        return found if found.inputs else made.setdefault(text, found)

    def is_used(g: int, slot: Slot) -> bool:
        return not slot.is_optional or is_on(slot, books.group_options[g], books.options)

    return [
        {} if one is None else {s: schedule(g, one, s) for s in one.schedules if is_used(g, s)}
        for g, one in enumerate(stored)
    ]
