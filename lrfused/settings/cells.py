"""Cell: the source of one hyperparameter of one parameter group, and its mirror in the group.

Code written for torch reads and writes numbers in ``param_groups``. A scheduled value is mirrored
there; a number that the caller writes over the mirror overrides the schedule while it differs.
"""

import math
import numbers
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lrfused.schedules import Schedule
from lrfused.schedules import input as schedule_input
from lrfused.schedules.check import nonnegative
from lrfused.schedules.evaluate import evaluate_one
from lrfused.settings.hints import refuse_what_is_no_number
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot

Value = float | Tensor | Schedule


@dataclass(slots=True)
class Cell:
    """The source of one hyperparameter of one group.

    ``schedule`` is the constructor's argument, unless that was a number; ``mirror`` the value last
    written to the group for it. ``tensor`` is a tensor in the group itself (``lr``, as in torch, or
    written by the caller), read through ``reader``; it takes precedence.
    """

    schedule: Schedule | None = None
    value: float = 0.0
    mirror: float | None = None
    tensor: Tensor | None = None
    reader: Schedule | None = None
    warned: bool = False
    loaded: Any = None  # value loaded over the mirror, not by load_state_dict; until the next step

    @staticmethod
    def of(source: Value, slot: Slot) -> "Cell":
        """The cell for a constructor's argument."""
        if type(source) is float:
            return Cell(None, source)
        cell = Cell()
        if isinstance(source, Tensor) and slot == Slot.LR:
            cell.read_from(source, slot)
        elif isinstance(source, Tensor):
            cell.schedule = schedule_input(source, slot.name.lower())
        elif isinstance(source, Schedule):
            cell.schedule = source
        else:
            cell.value = float(source)
        return cell

    def read_from(self, tensor: Tensor | None, slot: Slot) -> None:
        """Read the value from this tensor in the group; None: no longer from a tensor."""
        reader = None if tensor is None else schedule_input(tensor, slot.name.lower())
        self.tensor, self.reader = tensor, reader

    def is_mirrored(self, host: Any) -> bool:
        """True if the group's value is still the mirror, or a loaded value, not the caller's."""
        if self.schedule is None:
            return False
        return same(host, self.mirror) or (self.loaded is not None and same(host, self.loaded))

    def follow(self, schedule: Schedule | None) -> None:
        """Replace the schedule; the old one's mirror is forgotten."""
        self.schedule, self.mirror, self.warned = schedule, None, False
        self.tensor = self.reader = None

    def input_values(self) -> dict[str, float]:
        """The present values of the schedule's inputs, by name; waits for their device."""
        inputs = () if self.schedule is None else self.schedule.inputs
        return {node._payload[1]: float(node._payload[0]) for node in inputs}

    @property
    def source(self) -> Schedule | None:
        """The schedule that is evaluated at each step; None for a number."""
        return self.schedule if self.reader is None else self.reader


@dataclass(eq=False, slots=True)
class Settings:
    """What belongs to one parameter group, wherever its dictionary is in the list.

    ``number`` is also in the dictionary and in every copy of it.
    """

    number: int
    options: GroupOptions
    cells: list[Cell]


def pair(value: Any) -> tuple[Any, Any]:
    """The two values of any ordered iterable of two.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(value, tuple) and isinstance(value, (Set, Mapping)):
        raise TypeError("their order says nothing")
    first, second = value
    return first, second


def read_group(group: dict[str, Any], slot: Slot) -> Any:
    """The value of a hyperparameter in a group's dictionary."""
    value = group[slot.key]
    return value if slot.place is None else pair(value)[slot.place]


def schedule_in(group: dict[str, Any], slot: Slot) -> Schedule | None:
    """A schedule that the caller wrote to the group; invalid values are reported by `checked`."""
    try:
        value = read_group(group, slot)
    except (KeyError, TypeError, ValueError):
        return None
    return value if isinstance(value, Schedule) else None


def written(group: dict[str, Any], slot: Slot, value: Value) -> tuple[str, Any]:
    """The key and the new entry that set a hyperparameter in a group's dictionary to ``value``."""
    if slot.place is None:
        return slot.key, value
    both = list(pair(group[slot.key]))
    both[slot.place] = value
    return slot.key, tuple(both)


def as_number(value: Any) -> Any:
    """The element of a one-element NumPy array; anything else unchanged."""
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def number_or_nan(value: Any) -> float:
    """The value as a float; nan if it cannot be converted."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError, NotImplementedError):
        return math.nan


def is_zero(value: Any) -> bool:
    """True for a number or one-element tensor that is 0; False for a Schedule or anything else."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and float(value) == 0.0
    return isinstance(value, numbers.Real) and value == 0


def checked(g: int, slot: Slot, group: dict[str, Any]) -> Any:
    """The value of a hyperparameter in a group, if it is valid.

    Raises:
        TypeError: it is not a number, a one-element tensor or a Schedule.
    """
    try:
        value = read_group(group, slot)
    except (TypeError, ValueError):
        where = f"param_groups[{g}]: {slot.key}"
        raise TypeError(f"{where} must be a pair, got {group[slot.key]!r}") from None
    if type(value) is float:  # the usual case, fast: it runs at every step of a scheduler
        return value
    value, where = as_number(value), f"param_groups[{g}]: {slot.key}"
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise TypeError(f"{where} must have one element, got shape {tuple(value.shape)}")
    elif isinstance(value, bool) or not isinstance(value, (numbers.Real, Schedule)):
        refuse_what_is_no_number(slot.argument, value, f"param_groups[{g}]: ")
        raise TypeError(f"{where} must be a number, a Tensor or a Schedule, got {value!r}")
    return value


def same(host: Any, mirror: float | None) -> bool:
    """True if the host value equals the mirror; nan equals nan here."""
    if isinstance(host, Tensor):
        return False
    return bool(host == mirror or (host != host and mirror != mirror))


def is_known(schedule: Schedule, inputs: dict[int, float]) -> bool:
    """True if ``inputs``, by tensor id, has all that the schedule reads."""
    return all(id(node._payload[0]) in inputs for node in schedule.inputs)


def value_at(schedule: Schedule, step: int, inputs: dict[int, float] | None) -> float:
    """The value at a step; ``inputs`` replaces the inputs' own values, by tensor id."""
    if inputs is None:
        return schedule(step)
    known = tuple(inputs[id(node._payload[0])] for node in schedule.inputs)
    return evaluate_one(schedule.program, step, known)


def by_layer(schedule: Schedule, group: dict[str, Any]) -> Schedule:
    """A group's lr times ``lr_scale``, the layer's factor that timm's schedulers multiply by."""
    factor = nonnegative("lr_scale", group.get("lr_scale", 1.0))
    return schedule if factor == 1.0 else schedule * factor
