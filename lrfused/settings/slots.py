"""The hyperparameters of all optimizers, in one table.

Each is a column of a matrix with a row for every parameter group; columns that an optimizer does
not use are 0.
"""

import math
from enum import IntEnum
from typing import NamedTuple

LARGEST_FLOAT32 = 3.4028234663852886e38


class Range(IntEnum):
    """The range of a value; the numbers must match csrc/core/options.h."""

    FINITE = 0
    BELOW_ONE = 1
    LIMIT = 2  # a threshold, possibly infinite
    POSITIVE = 3
    ZERO = 4
    UNIT = 5

    @property
    def words(self) -> str:
        """The range in words, for error messages."""
        return WORDS[self]


WORDS = ("finite", "in [0, 1)", "0 or greater", "finite and greater than 0", "0", "in [0, 1]")


class Hyperparameter(NamedTuple):
    """Its key in a parameter group, its range, and its index if the value there is a tuple."""

    key: str
    range: Range = Range.FINITE
    place: int | None = None
    may_be_negative: bool = False  # as a number; a schedule's values always may
    is_optional: bool = False  # None leaves it out, and with it what it is for


class Slot(IntEnum):
    """The columns. Plan uses the first four, whose numbers must match csrc/core/options.h."""

    MAX_GRAD_NORM = 0  # the same for all groups: row 0 is used
    CLIP_VALUE = 1
    AGC = 2
    EMA_DECAY = 3
    LR = 4
    WEIGHT_DECAY = 5
    BETA1 = 6
    BETA2 = 7
    EPS = 8
    MOMENTUM = 9
    DAMPENING = 10

    @property
    def key(self) -> str:
        """Its key in a parameter group."""
        return TABLE[self].key

    @property
    def range(self) -> Range:
        """The range of its value."""
        return TABLE[self].range

    @property
    def place(self) -> int | None:
        """Its index in the group's tuple; None if the group has the value itself."""
        return TABLE[self].place

    @property
    def argument(self) -> str:
        """Its name for users."""
        return self.key if self.place is None else f"{self.key}[{self.place}]"

    @property
    def may_be_negative(self) -> bool:
        """True if a negative number is accepted, as in torch."""
        return TABLE[self].may_be_negative

    @property
    def is_optional(self) -> bool:
        """True for what may be left out: thresholds of clips, the decay of averages.

        These are arguments of ours, which parameter groups do not show.
        """
        return TABLE[self].is_optional

    @property
    def neutral(self) -> float:
        """The value where it is left out."""
        return math.inf if self.range == Range.LIMIT else 0.0


TABLE = {
    Slot.MAX_GRAD_NORM: Hyperparameter("max_grad_norm", Range.LIMIT, is_optional=True),
    Slot.CLIP_VALUE: Hyperparameter("clip_value", Range.LIMIT, is_optional=True),
    Slot.AGC: Hyperparameter("agc", Range.LIMIT, is_optional=True),
    Slot.EMA_DECAY: Hyperparameter("ema_decay", Range.UNIT, is_optional=True),
    Slot.LR: Hyperparameter("lr"),
    Slot.WEIGHT_DECAY: Hyperparameter("weight_decay"),
    Slot.BETA1: Hyperparameter("betas", Range.BELOW_ONE, 0),
    Slot.BETA2: Hyperparameter("betas", Range.BELOW_ONE, 1),
    Slot.EPS: Hyperparameter("eps"),
    Slot.MOMENTUM: Hyperparameter("momentum"),
    Slot.DAMPENING: Hyperparameter("dampening", may_be_negative=True),
}


SLOTS = tuple(Slot)
OPTIONAL = tuple(slot for slot in Slot if slot.is_optional)
_OPTIONAL_BY_NAME = {slot.key: slot for slot in OPTIONAL}


def optional_slot(name: str) -> Slot | None:
    """The optional slot with this argument name, or None."""
    return _OPTIONAL_BY_NAME.get(name)


def is_usable(kind: Range, value: float) -> bool:
    """True if a step can use the value, in float32, too."""
    if kind == Range.LIMIT:
        return bool(value >= 0.0)
    if kind == Range.BELOW_ONE:
        return bool(0.0 <= value < 1.0)
    if kind == Range.POSITIVE:
        return bool(0.0 < value <= LARGEST_FLOAT32)
    if kind == Range.ZERO:
        return bool(value == 0.0)
    if kind == Range.UNIT:
        return bool(0.0 <= value <= 1.0)
    return bool(abs(value) <= LARGEST_FLOAT32)
