"""What a step is told: the hyperparameters' names, the options of groups and optimizer.

The integer values here are those of csrc/core/options.h.
"""

from dataclasses import dataclass
from enum import IntEnum

from lrfused.settings.loss_scale import LossScale


class Slot(IntEnum):
    """The scheduled hyperparameters, columns of a matrix with a row a group."""

    LR = 0
    WEIGHT_DECAY = 1
    BETA1 = 2
    BETA2 = 3
    EPS = 4
    CLIP_VALUE = 5
    AGC = 6
    MAX_GRAD_NORM = 7  # one for all groups: row 0 counts


class DecayMode(IntEnum):
    """What the parameters shrink by: 1 - lr * decay, 1 - decay, 1 - decay * lr / peak_lr."""

    LR = 0
    INDEPENDENT = 1
    LR_RATIO = 2


class BiasCorrection(IntEnum):
    """1 - beta**count (torch), or 1 - the product of the betas that were used."""

    POWER = 0
    PRODUCT = 1


class Agc(IntEnum):
    """Adaptive gradient clipping: not at all, by output unit, by whole tensor."""

    OFF = 0
    UNIT = 1
    TENSOR = 2


class Nonfinite(IntEnum):
    """What a gradient that is not finite does."""

    PROPAGATE = 0
    SKIP = 1
    RAISE = 2


class Error(IntEnum):
    """Why a step was refused; nothing was changed."""

    NONE = 0
    HYPERPARAMETER = 1
    GRADIENT = 2
    COUNT = 3


@dataclass(frozen=True)
class GroupOptions:
    """The options of a parameter group, apart from its hyperparameters."""

    amsgrad: bool = False
    maximize: bool = False
    decay_mode: DecayMode = DecayMode.LR
    bias_correction: BiasCorrection = BiasCorrection.POWER
    value_clip: bool = False
    agc: Agc = Agc.OFF
    start_step: int = 0
    peak_lr: float = 1.0


@dataclass(frozen=True)
class Options:
    """The options of an optimizer."""

    clip_norm: bool = False
    infinity_norm: bool = False
    nonfinite: Nonfinite = Nonfinite.PROPAGATE
    accumulation_steps: int = 1
    loss_scale: LossScale | None = None
    advance_schedule_on_skip: bool = False
    write_grads: bool = False
    always_measure: bool = False
    sharded: bool | None = None  # each rank has a part of every parameter; None: as its marks say

    @property
    def checks_gradients(self) -> bool:
        """A gradient that is not finite decides something."""
        return self.nonfinite != Nonfinite.PROPAGATE or self.loss_scale is not None

    @property
    def raises_on_gradients(self) -> bool:
        """A gradient that is not finite is an error; with a loss scale it is to be expected."""
        return self.nonfinite == Nonfinite.RAISE and self.loss_scale is None

    def measures(self, groups: list[GroupOptions]) -> bool:
        """Something global has to be known before the first parameter may move."""
        return (
            self.clip_norm
            or self.checks_gradients
            or self.always_measure
            or any(group.agc for group in groups)
        )
