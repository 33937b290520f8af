"""Schedules of one phase: constant, linear, cosine, exponential, polynomial, decays."""

import math
from collections.abc import Sequence

from lrfused.schedules.check import nonnegative, positive, whole
from lrfused.schedules.expression import (
    Schedule,
    as_schedule,
    cos,
    floor,
    less,
    less_equal,
    minimum,
    select,
    sqrt,
    step,
)

SHAPES = ("linear", "cosine", "exponential", "polynomial", "sqrt")


def mix(start: Schedule | float, end: Schedule | float, weight: Schedule) -> Schedule:
    """start * weight + end * (1 - weight): exact at weight 1 and at weight 0."""
    return as_schedule(start) * weight + as_schedule(end) * (1.0 - weight)


def ramp(
    start: Schedule | float, end: Schedule | float, steps: int, shape: str, power: float = 1.0
) -> Schedule:
    """From start (at step 0) to end (from step ``steps`` on) along one of the shapes.

    The one place where the shapes are defined; arguments are checked by the callers.
    """
    if steps == 0:
        return as_schedule(end)
    if shape == "cosine":
        # cos**2 rather than (1 + cos) / 2: near the end one ulp of cos would show.
        half_turn = cos(step * (math.pi / (2 * steps)))
        return mix(start, end, select(less(step, steps), half_turn * half_turn, 0.0))
    if shape == "exponential":
        ratio = as_schedule(end) / start
        return select(less(step, steps), as_schedule(start) * ratio ** (step / steps), end)
    progress = minimum(step, steps) / steps
    if shape == "linear":
        return mix(end, start, progress)
    if shape == "sqrt":
        return mix(end, start, sqrt(progress))
    return mix(start, end, (1.0 - progress) ** power)


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
    """A constant factor an update, from start to end.

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


def inverse_sqrt(peak: float, warmup_steps: int) -> Schedule:
    """A linear rise to the peak, then a decay with the square root of the step.

    Formula:
        peak * (step + 1) / warmup_steps          for step + 1 <= warmup_steps
        peak * sqrt(warmup_steps / (step + 1))    from then on

    Args:
        peak: the largest value, reached at step ``warmup_steps - 1``; finite, >= 0.
        warmup_steps: length of the rise in updates, >= 1.

    Raises:
        ValueError: peak is negative or not finite, or warmup_steps < 1.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.inverse_sqrt(1.0, warmup_steps=4)(t) for t in (0, 3, 15)]
        [0.25, 1.0, 0.5]

    Source: Vaswani et al., Attention Is All You Need, arXiv 1706.03762, section 5.3.
    """
    peak = nonnegative("peak", peak)
    warmup_steps = whole("warmup_steps", warmup_steps, minimum=1)
    count = step + 1.0
    return peak * minimum(count / warmup_steps, sqrt(warmup_steps / count))


def noam(model_size: int, warmup_steps: int, factor: float = 1.0) -> Schedule:
    """The Transformer's schedule in its original form.

    Formula:
        factor * model_size**-0.5 * min(n**-0.5, n * warmup_steps**-1.5),  n = step + 1

    Args:
        model_size: width of the model, >= 1.
        warmup_steps: length of the rise in updates, >= 1.
        factor: finite, >= 0.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> round(schedules.noam(512, warmup_steps=4000)(3999), 9)
        0.000698771

    Source: Vaswani et al., Attention Is All You Need, arXiv 1706.03762, equation 3.
    """
    model_size = whole("model_size", model_size, minimum=1)
    warmup_steps = whole("warmup_steps", warmup_steps, minimum=1)
    peak = nonnegative("factor", factor) / math.sqrt(model_size * warmup_steps)
    return inverse_sqrt(peak, warmup_steps)


def step_decay(value: float, factor: float, every: int) -> Schedule:
    """A factor at regular intervals.

    Formula:
        value * factor**floor(step / every)

    Args:
        value: value at step 0, finite, >= 0.
        factor: what each drop multiplies by, finite, >= 0.
        every: updates between drops, >= 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.step_decay(1.0, 0.5, every=10)(t) for t in (0, 9, 10, 25)]
        [1.0, 1.0, 0.5, 0.25]

    Source: torch.optim.lr_scheduler.StepLR.
    """
    value = nonnegative("value", value)
    factor = nonnegative("factor", factor)
    every = whole("every", every, minimum=1)
    return value * as_schedule(float(factor)) ** floor(step / every)


def multi_step(value: float, factor: float, milestones: Sequence[int]) -> Schedule:
    """A factor at each milestone.

    Formula:
        value * factor**(number of milestones <= step)

    Args:
        value: value at step 0, finite, >= 0.
        factor: what each milestone multiplies by, finite, >= 0.
        milestones: steps, >= 1, strictly increasing, at least one.

    Raises:
        ValueError: an argument is out of its range, or the milestones do not increase.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.multi_step(1.0, 0.5, [10, 15])(t) for t in (9, 10, 15)]
        [1.0, 0.5, 0.25]

    Source: torch.optim.lr_scheduler.MultiStepLR.
    """
    value = nonnegative("value", value)
    factor = nonnegative("factor", factor)
    passed = [less_equal(float(m), step) for m in increasing("milestones", milestones)]
    while len(passed) > 1:  # a balanced sum keeps the expression shallow
        passed = [
            passed[i] + passed[i + 1] if i + 1 < len(passed) else passed[i]
            for i in range(0, len(passed), 2)
        ]
    return value * as_schedule(float(factor)) ** passed[0]


def increasing(name: str, steps: Sequence[int]) -> list[int]:
    """A non-empty, strictly increasing list of whole numbers >= 1."""
    if not hasattr(steps, "__len__"):
        raise TypeError(f"{name}: must be a list of steps, got {type(steps).__name__}")
    checked = [whole(f"{name}[{i}]", s, minimum=1) for i, s in enumerate(steps)]
    if not checked:
        raise ValueError(f"{name}: must not be empty")
    for i in range(1, len(checked)):
        if checked[i] <= checked[i - 1]:
            raise ValueError(
                f"{name}: must increase strictly, got {checked[i - 1]} before {checked[i]}"
            )
    return checked


def _simple_ramp(start: float, end: float, steps: int, shape: str, power: float = 1.0) -> Schedule:
    start = nonnegative("start", start)
    end = nonnegative("end", end)
    steps = whole("steps", steps, minimum=1)
    return ramp(float(start), float(end), steps, shape, power)
