"""The hyperparameters of all optimizers, in one table.

Each is a column of a matrix with a row for every parameter group; columns that an optimizer does
not use are 0.
"""

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

    @property
    def words(self) -> str:
        """The range in words, for error messages."""
        return ("finite", "in [0, 1)", "0 or greater", "finite and greater than 0", "0")[self]


class Hyperparameter(NamedTuple):
    """Its key in a parameter group, its range, and its index if the value there is a tuple."""

    key: str
    range: Range = Range.FINITE
    place: int | None = None
    may_be_negative: bool = False  # as a number; a schedule's values always may


class Slot(IntEnum):
    """The columns. Plan uses the first three, whose numbers must match csrc/core/options.h."""

    MAX_GRAD_NORM = 0  # the same for all groups: row 0 is used
    CLIP_VALUE = 1
    AGC = 2
    LR = 3
    WEIGHT_DECAY = 4
    BETA1 = 5
    BETA2 = 6
    EPS = 7
    MOMENTUM = 8
    DAMPENING = 9

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
    def is_limit(self) -> bool:
        """True for the threshold of a clip, which may be left out."""
        return self.range == Range.LIMIT


TABLE = {
    Slot.MAX_GRAD_NORM: Hyperparameter("max_grad_norm", Range.LIMIT),
    Slot.CLIP_VALUE: Hyperparameter("clip_value", Range.LIMIT),
    Slot.AGC: Hyperparameter("agc", Range.LIMIT),
    Slot.LR: Hyperparameter("lr"),
    Slot.WEIGHT_DECAY: Hyperparameter("weight_decay"),
    Slot.BETA1: Hyperparameter("betas", Range.BELOW_ONE, 0),
    Slot.BETA2: Hyperparameter("betas", Range.BELOW_ONE, 1),
    Slot.EPS: Hyperparameter("eps"),
    Slot.MOMENTUM: Hyperparameter("momentum"),
    Slot.DAMPENING: Hyperparameter("dampening", may_be_negative=True),
}


LIMITS = tuple(slot for slot in Slot if slot.is_limit)


def limit_of(name: str) -> Slot | None:
    """The threshold slot with this argument name, or None."""
    return next((slot for slot in LIMITS if slot.key == name), None)


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
    return bool(abs(value) <= LARGEST_FLOAT32)
