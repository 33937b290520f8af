"""Periodic schedules: cyclical learning rates and warm restarts.

The index of a cycle is computed by integer comparisons and floor, never by a logarithm.
"""

import math

from lrfused.schedules.check import nonnegative, positive, whole
from lrfused.schedules.expression import Schedule, as_schedule, step
from lrfused.schedules.functions import floor, less, less_equal, select
from lrfused.schedules.shapes import mix, squared_cosine


def _wave(low: float, high: float, up_steps: int, down_steps: int | None) -> tuple[Schedule, ...]:
    """Check a triangle wave; returns (height in [0, 1], index of the cycle)."""
    low = nonnegative("low", low)
    if nonnegative("high", high) < low:
        raise ValueError(f"high: must be at least low ({low}), got {high}")
    up_steps = whole("up_steps", up_steps, minimum=1)
    down = up_steps if down_steps is None else whole("down_steps", down_steps, minimum=1)
    cycle = floor(step / (up_steps + down))
    position = step - cycle * (up_steps + down)
    fall = (up_steps + down - position) / down
    return select(less(position, up_steps), position / up_steps, fall), cycle


def triangular(low: float, high: float, up_steps: int, down_steps: int | None = None) -> Schedule:
    """A triangle wave between low and high.

    Formula:
        low + (high - low) * h,  h = x / up_steps                       for x < up_steps
                                 h = (up_steps + down_steps - x) / down_steps   otherwise
        with x = step mod (up_steps + down_steps)

    Args:
        low, high: finite, 0 <= low <= high.
        up_steps: updates of each rise, >= 1.
        down_steps: updates of each fall, >= 1; defaults to up_steps.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.triangular(0.0, 1.0, up_steps=2)(t) for t in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]

    Source: Smith, Cyclical Learning Rates, arXiv 1506.01186; torch's CyclicLR.
    """
    height, _ = _wave(low, high, up_steps, down_steps)
    return mix(float(high), float(low), height)


def triangular2(low: float, high: float, up_steps: int, down_steps: int | None = None) -> Schedule:
    """A triangle wave whose height halves with every cycle.

    Formula:
        low + (high - low) * h / 2**cycle, with h and cycle as in :func:`triangular`

    Args:
        low, high, up_steps, down_steps: as in :func:`triangular`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.triangular2(0.0, 1.0, up_steps=2)(t) for t in (2, 6, 10)]
        [1.0, 0.5, 0.25]

    Source: Smith, Cyclical Learning Rates, arXiv 1506.01186; torch's CyclicLR.
    """
    height, cycle = _wave(low, high, up_steps, down_steps)
    return mix(float(high), float(low), height * as_schedule(0.5) ** cycle)


def exp_range(
    low: float, high: float, gamma: float, up_steps: int, down_steps: int | None = None
) -> Schedule:
    """A triangle wave whose height shrinks by a factor every update.

    Formula:
        low + (high - low) * h * gamma**step, with h as in :func:`triangular`

    Args:
        low, high, up_steps, down_steps: as in :func:`triangular`.
        gamma: factor an update, 0 < gamma <= 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.exp_range(0.0, 1.0, 0.5, up_steps=2)(t) for t in (0, 2, 6)]
        [0.0, 0.25, 0.015625]

    Source: Smith, Cyclical Learning Rates, arXiv 1506.01186; torch's CyclicLR.
    """
    if positive("gamma", gamma) > 1.0:
        raise ValueError(f"gamma: must be at most 1, got {gamma}")
    height, _ = _wave(low, high, up_steps, down_steps)
    return mix(float(high), float(low), height * as_schedule(float(gamma)) ** step)


def cosine_restarts(
    start: float, end: float, period: int, factor: int = 1, cycles: int | None = None
) -> Schedule:
    """Cosine decays that restart, each ``factor`` times as long as the one before.

    Formula:
        end + (start - end) * cos(pi/2 * x / n)**2, with cycle i starting at
        s_i = period * (factor**i - 1) / (factor - 1), x = step - s_i, n = period * factor**i
        end from the end of the last cycle on, if ``cycles`` is given

    Args:
        start, end: finite, >= 0.
        period: updates of the first cycle, >= 1.
        factor: whole number, >= 1.
        cycles: number of cycles, 1 to 50; unlimited if left out, which needs factor 1.

    Raises:
        ValueError: an argument is out of its range, or cycles is missing with factor > 1.

    Example:
        >>> from lrfused import schedules
        >>> lr = schedules.cosine_restarts(1.0, 0.0, period=10, factor=2, cycles=3)
        >>> [round(lr(t), 6) for t in (0, 5, 10, 20, 30, 50, 70)]
        [1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 0.0]

    Source: Loshchilov and Hutter, SGDR, arXiv 1608.03983; torch's CosineAnnealingWarmRestarts.
    """
    start = nonnegative("start", start)
    end = nonnegative("end", end)
    period = whole("period", period, minimum=1)
    factor = whole("factor", factor, minimum=1)
    if cycles is not None:
        whole("cycles", cycles, minimum=1, maximum=50)
    elif factor > 1:
        raise ValueError(f"cycles: must be given when factor is greater than 1, got {factor}")
    if factor == 1:
        done = (step % period) / period
        finish = None if cycles is None else period * cycles
    else:
        assert cycles is not None
        starts = [period * (factor**i - 1) // (factor - 1) for i in range(cycles + 1)]
        finish = starts.pop()
        if finish > 2**53:
            raise ValueError(f"cycles: the last cycle must end before step 2**53, got {cycles}")
        began: Schedule = as_schedule(0.0)
        for s in starts[1:]:
            began = select(less_equal(float(s), step), float(s), began)
        # A cycle that begins at s has length s * (factor - 1) + period.
        done = (step - began) / (began * (factor - 1.0) + period)
    wave = mix(float(start), float(end), squared_cosine(done * (math.pi / 2)))
    return wave if finish is None else select(less(step, float(finish)), wave, float(end))
