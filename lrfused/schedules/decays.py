"""Decays: by the inverse square root of the step, and by factors at given steps."""

import math
from collections.abc import Sequence

from lrfused.schedules.check import increasing, nonnegative, whole
from lrfused.schedules.expression import Schedule, as_schedule, step
from lrfused.schedules.functions import floor, less_equal, minimum, sqrt


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
    """The Transformer's original schedule.

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


def rex(peak: float, steps: int) -> Schedule:
    """REX, a decay that stays high for long and then falls quickly: the best of many on a budget.

    Formula:
        peak * (1 - z) / (1/2 + (1 - z) / 2),  z = min(step / steps, 1)

    Args:
        peak: value at step 0, finite, >= 0.
        steps: updates until the value is 0, >= 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.rex(1.0, steps=6)(t) for t in (0, 3, 4, 6, 9)]
        [1.0, 0.6666666666666666, 0.5, 0.0, 0.0]

    Source: Chen et al., REX: Revisiting Budgeted Training with an Improved Schedule, arXiv
    2107.04197.
    """
    peak = nonnegative("peak", peak)
    steps = whole("steps", steps, minimum=1)
    left = (steps - minimum(step, float(steps))) / steps
    return peak * (left / (0.5 + 0.5 * left))


def step_decay(value: float, factor: float, every: int) -> Schedule:
    """Multiplication by a factor at regular intervals.

    Formula:
        value * factor**floor(step / every)

    Args:
        value: value at step 0, finite, >= 0.
        factor: the factor of each drop, finite, >= 0.
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
    return value * as_schedule(factor) ** floor(step / every)


def multi_step(value: float, factor: float, milestones: Sequence[int]) -> Schedule:
    """Multiplication by a factor at each milestone.

    Formula:
        value * factor**(number of milestones <= step)

    Args:
        value: value at step 0, finite, >= 0.
        factor: the factor at each milestone, finite, >= 0.
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
    return value * as_schedule(factor) ** passed[0]
