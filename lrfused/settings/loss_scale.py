"""LossScale: the policy of FP16 loss scaling, applied inside the step."""

from dataclasses import dataclass

from lrfused.schedules.check import positive, whole
from lrfused.settings.hints import refuse_a_scaler
from lrfused.settings.slots import LARGEST_FLOAT32


@dataclass(frozen=True)
class LossScale:
    """Dynamic loss scaling: back off when a gradient is not finite, else grow at intervals.

    Formula, after each step:
        some gradient not finite:  the step is skipped; from the ``hysteresis``-th such step in a
                                   row on, scale = max(scale * backoff_factor, minimum)
        growth_interval good steps in a row:  scale = min(scale * growth_factor, maximum),
                                   unless the product exceeds float32
        otherwise:                 scale is unchanged

    Args:
        init: the initial scale, > 0; default 65536. All defaults are those of torch's GradScaler.
        growth_factor: > 1.
        backoff_factor: 0 < backoff_factor < 1.
        growth_interval: good steps before the scale grows, >= 1.
        hysteresis: bad steps before the scale backs off, >= 1.
        minimum: lower bound of the scale, > 0.
        maximum: upper bound of the scale, >= init.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of its range.

    Example:
        >>> import lrfused
        >>> lrfused.LossScale(init=1024.0, growth_interval=100).init
        1024.0

    Source: Micikevicius et al., Mixed Precision Training, arXiv 1710.03740; torch.amp.GradScaler.
    """

    init: float = 65536.0
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    hysteresis: int = 1
    minimum: float = 2.0**-126
    maximum: float = LARGEST_FLOAT32
    dynamic: bool = True

    def __post_init__(self) -> None:
        for name in ("init", "growth_factor", "backoff_factor", "minimum", "maximum"):
            self._set(name, positive(name, getattr(self, name)))
        for name in ("growth_interval", "hysteresis"):
            self._set(name, whole(name, getattr(self, name), minimum=1))
        if self.growth_factor <= 1.0:
            raise ValueError(f"growth_factor: must be greater than 1, got {self.growth_factor}")
        if self.backoff_factor >= 1.0:
            raise ValueError(f"backoff_factor: must be less than 1, got {self.backoff_factor}")
        if self.maximum > LARGEST_FLOAT32:
            raise ValueError(f"maximum: must be a float32 number, got {self.maximum}")
        if not self.minimum <= self.init <= self.maximum:
            raise ValueError(
                f"init: must lie in [minimum, maximum] = [{self.minimum}, {self.maximum}], "
                f"got {self.init}"
            )

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen

    @staticmethod
    def of(value: "LossScale | float | str | None") -> "LossScale | None":
        """The policy that an optimizer's ``loss_scale`` argument names."""
        if value is None or isinstance(value, LossScale):
            return value
        if isinstance(value, str):
            if value == "dynamic":
                return LossScale()
            raise ValueError(
                f"loss_scale: must be None, a number, 'dynamic' or a LossScale, got {value!r}"
            )
        refuse_a_scaler(value)
        if isinstance(value, type):
            raise TypeError(f"loss_scale: got the class {value.__name__}; call it")
        scale = positive("loss_scale", value)
        if scale > LARGEST_FLOAT32:
            raise ValueError(f"loss_scale: must be a float32 number, got {value}")
        return LossScale(init=scale, minimum=min(scale, 2.0**-126), dynamic=False)
