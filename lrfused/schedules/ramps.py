"""Single-phase schedules: from one value to another along a line or a curve."""

from lrfused.schedules.check import nonnegative, positive, whole
from lrfused.schedules.expression import Schedule, as_schedule
from lrfused.schedules.shapes import ramp


def constant(value: float) -> Schedule:
    """The same value at every step.

    Formula:
        value

    Args:
        value: finite, >= 0.

    Raises:
        ValueError: value is negative or not finite.

    Example:
        >>> from lrfused import schedules
        >>> schedules.constant(1e-3)(7)
        0.001
    """
    return as_schedule(nonnegative("value", value))


def linear(start: float, end: float, steps: int) -> Schedule:
    """A straight line from start to end.

    Formula:
        start + (end - start) * step / steps   for step < steps
        end                                    from then on

    Args:
        start: value at step 0, finite, >= 0.
        end: value from step ``steps`` on, finite, >= 0.
        steps: length in updates, >= 1.

    Raises:
        ValueError: a value is negative or not finite, or steps < 1.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.linear(1.0, 0.0, steps=4)(t) for t in (0, 1, 4, 9)]
        [1.0, 0.75, 0.0, 0.0]

    Source: torch.optim.lr_scheduler.LinearLR.
    """
    return _simple_ramp(start, end, steps, "linear")


def cosine(start: float, end: float, steps: int) -> Schedule:
    """Half a period of a cosine from start to end.

    Formula:
        end + (start - end) * cos(pi/2 * step / steps)**2   for step < steps
        end                                                 from then on

    Args:
        start: value at step 0, finite, >= 0.
        end: value from step ``steps`` on, finite, >= 0.
        steps: length in updates, >= 1.

    Raises:
        ValueError: a value is negative or not finite, or steps < 1.

    Example:
        >>> from lrfused import schedules
        >>> cosine = schedules.cosine(1.0, 0.0, steps=4)
        >>> cosine(0), round(cosine(2), 12), cosine(4)
        (1.0, 0.5, 0.0)

    Source: Loshchilov and Hutter, SGDR, arXiv 1608.03983, equation 5.
    """
    return _simple_ramp(start, end, steps, "cosine")


def exponential(start: float, end: float, steps: int) -> Schedule:
    """A constant factor per update, from start to end.

    Formula:
        start * (end / start)**(step / steps)   for step < steps
        end                                     from then on

    Args:
        start: value at step 0, finite, > 0.
        end: value from step ``steps`` on, finite, > 0.
        steps: length in updates, >= 1.

    Raises:
        ValueError: a value is not positive or not finite, or steps < 1.

    Example:
        >>> from lrfused import schedules
        >>> [round(schedules.exponential(1.0, 0.01, steps=2)(t), 12) for t in (0, 1, 2)]
        [1.0, 0.1, 0.01]

    Source: torch.optim.lr_scheduler.ExponentialLR, optax.exponential_decay.
    """
    start = positive("start", start)
    end = positive("end", end)
    return _simple_ramp(start, end, steps, "exponential")


def polynomial(start: float, end: float, steps: int, power: float = 1.0) -> Schedule:
    """A power of the remaining fraction, from start to end.

    Formula:
        end + (start - end) * (1 - step / steps)**power   for step < steps
        end                                               from then on

    Args:
        start: value at step 0, finite, >= 0.
        end: value from step ``steps`` on, finite, >= 0.
        steps: length in updates, >= 1.
        power: finite, > 0; 1 is linear.

    Raises:
        ValueError: a value is negative or not finite, steps < 1 or power <= 0.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.polynomial(1.0, 0.0, steps=4, power=2)(t) for t in (0, 2, 4)]
        [1.0, 0.25, 0.0]

    Source: torch.optim.lr_scheduler.PolynomialLR, optax.polynomial_schedule.
    """
    return _simple_ramp(start, end, steps, "polynomial", positive("power", power))


def _simple_ramp(start: float, end: float, steps: int, shape: str, power: float = 1.0) -> Schedule:
    start = nonnegative("start", start)
    end = nonnegative("end", end)
    steps = whole("steps", steps, minimum=1)
    return ramp(start, end, steps, shape, power)
