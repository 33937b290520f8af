"""Where one hyperparameter of one parameter group comes from, and what its group shows of it.

torch's world reads and writes host numbers in ``param_groups``. A scheduled value is mirrored
there; a number that the caller writes over a mirror leads, as long as it differs from it.
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


@dataclass
class Cell:
    """Where one hyperparameter of one group comes from.

    ``schedule`` is what the constructor was given, if it was not a number; ``mirror`` the number
    that was last written to the group for it. ``tensor`` is one that stands in the group itself
    (``lr``, as torch has it, or written there by the caller), read by ``reader``; it leads.
    """

    schedule: Schedule | None = None
    value: float = 0.0
    mirror: float | None = None
    tensor: Tensor | None = None
    reader: Schedule | None = None
    warned: bool = False
    loaded: Any = None  # what was loaded over the mirror behind our back, until the next step

    @staticmethod
    def of(source: Value, slot: Slot) -> "Cell":
        """The cell of a constructor's value."""
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
        """Another tensor in the group, or none any more."""
        reader = None if tensor is None else schedule_input(tensor, slot.name.lower())
        self.tensor, self.reader = tensor, reader

    def is_mirrored(self, host: Any) -> bool:
        """The caller left the mirrored number alone, and so has whoever loads."""
        if self.schedule is None:
            return False
        return same(host, self.mirror) or (self.loaded is not None and same(host, self.loaded))

    def follow(self, schedule: Schedule | None) -> None:
        """Another schedule from here on; what was mirrored of the old one is forgotten."""
        self.schedule, self.mirror, self.warned = schedule, None, False
        self.tensor = self.reader = None

    @property
    def source(self) -> Schedule | None:
        """What a program is needed for."""
        return self.schedule if self.reader is None else self.reader


@dataclass(eq=False)
class Settings:
    """What belongs to one parameter group, wherever its dictionary stands.

    ``number`` stands in the dictionary, too, and in every copy of it.
    """

    number: int
    options: GroupOptions
    cells: list[Cell]


def pair(value: Any) -> tuple[Any, Any]:
    """Two values, out of anything that unpacks to two and has an order.

    Raises:
        TypeError, ValueError: it does not.
    """
    if not isinstance(value, tuple) and isinstance(value, (Set, Mapping)):
        raise TypeError("their order says nothing")
    first, second = value
    return first, second


def read_group(group: dict[str, Any], slot: Slot) -> Any:
    """The caller's side of a hyperparameter."""
    value = group[slot.key]
    return value if slot.place is None else pair(value)[slot.place]


def schedule_in(group: dict[str, Any], slot: Slot) -> Schedule | None:
    """One that the caller wrote there; whatever else stands there has its turn later."""
    try:
        value = read_group(group, slot)
    except (KeyError, TypeError, ValueError):
        return None
    return value if isinstance(value, Schedule) else None


def written(group: dict[str, Any], slot: Slot, value: Value) -> tuple[str, Any]:
    """The key of the caller's side of a hyperparameter, and what changes it to ``value``."""
    if slot.place is None:
        return slot.key, value
    both = list(pair(group[slot.key]))
    both[slot.place] = value
    return slot.key, tuple(both)


def as_number(value: Any) -> Any:
    """A NumPy array of one element as its element; anything else as it is."""
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def number_or_nan(value: Any) -> float:
    """As a float; nan if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError, NotImplementedError):
        return math.nan


def is_zero(value: Any) -> bool:
    """A number that is 0; a Schedule, or what is no number at all, is not."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and float(value) == 0.0
    return isinstance(value, numbers.Real) and value == 0


def checked(g: int, slot: Slot, group: dict[str, Any]) -> Any:
    """What stands in a group, if it can be a hyperparameter.

    Raises:
        TypeError: it cannot.
    """
    try:
        value = read_group(group, slot)
    except (TypeError, ValueError):
        where = f"param_groups[{g}]: {slot.key}"
        raise TypeError(f"{where} must be a pair, got {group[slot.key]!r}") from None
    if type(value) is float:  # as a rule, and at every step of a scheduler
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
    """The caller left the mirrored number alone; nan equals itself here."""
    if isinstance(host, Tensor):
        return False
    return bool(host == mirror or (host != host and mirror != mirror))


def value_at(schedule: Schedule, step: int, inputs: dict[int, float] | None) -> float:
    """The value at a step, with the inputs' own values unless others are given."""
    if inputs is None:
        return schedule(step)
    known = tuple(inputs[id(node._payload[0])] for node in schedule.inputs)
    return evaluate_one(schedule.program, step, known)


def by_layer(schedule: Schedule, group: dict[str, Any]) -> Schedule:
    """A group's lr with timm's factor of its layer, by which timm's schedulers multiply."""
    factor = nonnegative("lr_scale", group.get("lr_scale", 1.0))
    return schedule if factor == 1.0 else schedule * factor
