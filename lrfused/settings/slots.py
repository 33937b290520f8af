"""The hyperparameters of all optimizers: one table.

Each is a column of a matrix that has a row for every parameter group; those that an optimizer does
not have are 0 there.
"""

from enum import IntEnum
from typing import NamedTuple

LARGEST_FLOAT32 = 3.4028234663852886e38


class Range(IntEnum):
    """What a value has to be; csrc/core/options.h has the same numbers."""

    FINITE = 0
    BELOW_ONE = 1
    LIMIT = 2  # a threshold, which may be infinite
    POSITIVE = 3
    ZERO = 4

    @property
    def words(self) -> str:
        """In words."""
        return ("finite", "in [0, 1)", "0 or greater", "finite and greater than 0", "0")[self]


class Hyperparameter(NamedTuple):
    """Where it stands in a parameter group, at which place of the tuple there, and its range."""

    key: str
    range: Range = Range.FINITE
    place: int | None = None
    may_be_negative: bool = False  # as a number of the caller's; a schedule's values may be anyway


class Slot(IntEnum):
    """The columns. The first three belong to plan, whose numbers csrc/core/options.h has, too."""

    MAX_GRAD_NORM = 0  # one for all groups: row 0 counts
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
        """What its value has to be."""
        return TABLE[self].range

    @property
    def place(self) -> int | None:
        """Its place in the tuple that stands in the group; None where it stands there itself."""
        return TABLE[self].place

    @property
    def argument(self) -> str:
        """What a user calls it."""
        return self.key if self.place is None else f"{self.key}[{self.place}]"

    @property
    def may_be_negative(self) -> bool:
        """A number below 0 is accepted, as torch does."""
        return TABLE[self].may_be_negative

    @property
    def is_limit(self) -> bool:
        """It is the threshold of a clip, which may be left out."""
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
    """The threshold of a clip that has this name as an argument."""
    return next((slot for slot in LIMITS if slot.key == name), None)


def is_usable(kind: Range, value: float) -> bool:
    """A step can use the value, in float32, too."""
    if kind == Range.LIMIT:
        return bool(value >= 0.0)
    if kind == Range.BELOW_ONE:
        return bool(0.0 <= value < 1.0)
    if kind == Range.POSITIVE:
        return bool(0.0 < value <= LARGEST_FLOAT32)
    if kind == Range.ZERO:
        return bool(value == 0.0)
    return bool(abs(value) <= LARGEST_FLOAT32)
