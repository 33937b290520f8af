"""The options of groups and optimizer that a step gets.

The integer values must match csrc/core/options.h.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from lrfused.settings.loss_scale import LossScale


class DecayMode(IntEnum):
    """The factor on the parameters: 1 - lr * decay, 1 - decay, 1 - decay * lr / peak_lr.

    L2 has none: decay * p is added to the gradient.
    """

    LR = 0
    INDEPENDENT = 1
    LR_RATIO = 2
    L2 = 3


class Agc(IntEnum):
    """Adaptive gradient clipping: off, by output unit, by whole tensor."""

    OFF = 0
    UNIT = 1
    TENSOR = 2


class Source(IntEnum):
    """Where a hyperparameter comes from, for rules to which that matters."""

    ZERO = 0  # the number
    NUMBER = 1
    SCHEDULE = 2  # or a Tensor: its values are known when a step is planned


class Nonfinite(IntEnum):
    """What to do about a gradient that is not finite."""

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
    """The options of a parameter group, apart from its hyperparameters.

    ``of_rule`` are the options specific to the optimizer's rule, such as amsgrad.
    """

    maximize: bool = False
    decay_mode: DecayMode = DecayMode.LR
    value_clip: bool = False
    agc: Agc = Agc.OFF
    start_step: int = 0
    average_every: int = 0  # steps from one update of the averages to the next; 0: no averages
    peak_lr: float = 1.0
    of_rule: dict[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:  # written, as a dictionary has none
        return hash(
            (self.decay_mode, self.start_step, self.peak_lr, frozenset(self.of_rule.items()))
        )


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
    zero_grads: bool = False
    always_measure: bool = False
    sharded: bool | None = None  # ranks hold parts of parameters; None: ask each parameter

    @property
    def checks_gradients(self) -> bool:
        """True if a gradient that is not finite affects the step."""
        return self.nonfinite != Nonfinite.PROPAGATE or self.loss_scale is not None

    @property
    def raises_on_gradients(self) -> bool:
        """True if a gradient that is not finite is an error; with a loss scale it is expected."""
        return self.nonfinite == Nonfinite.RAISE and self.loss_scale is None

    @property
    def changes_gradients(self) -> bool:
        """True if a step writes to gradients."""
        return self.write_grads or self.zero_grads

    def measures(self, groups: list[GroupOptions]) -> bool:
        """True if all gradients must be measured before the first parameter is updated."""
        return (
            self.clip_norm
            or self.checks_gradients
            or self.always_measure
            or any(group.agc for group in groups)
        )
