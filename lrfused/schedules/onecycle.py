"""The one-cycle schedule: up to a peak and down far below the start; and its momentum."""

import math

from lrfused.schedules.check import nonnegative, one_of, positive, whole
from lrfused.schedules.expression import Schedule, as_schedule, step
from lrfused.schedules.functions import less_equal, select
from lrfused.schedules.shapes import mix, squared_cosine

ANNEAL_SHAPES = ("cosine", "linear")


def one_cycle(
    peak: float,
    total_steps: int,
    *,
    pct_start: float = 0.3,
    shape: str = "cosine",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """One cycle of the learning rate: up to the peak, and down far below the start.

    Formula:
        with first = peak / div_factor, last = first / final_div_factor, r = pct_start * total_steps
        first to peak      over steps 0 .. r - 1
        peak to last       over steps r - 1 .. total_steps - 1
        (three_phase: peak to first over r - 1 .. 2 r - 2, then first to last)
        last               from then on

    Args:
        peak: finite, >= 0.
        total_steps: total number of updates, >= 2.
        pct_start: fraction of the updates spent rising, 0 < pct_start < 1 (three_phase:
            < 1/2), with pct_start * total_steps > 1.
        shape: "cosine" or "linear".
        div_factor: peak / first value, > 0.
        final_div_factor: first value / last value, > 0.
        three_phase: fall symmetrically to the rise, then further to the last value.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> lr = schedules.one_cycle(1.0, total_steps=10)
        >>> [round(lr(t), 6) for t in (0, 2, 9)]
        [0.04, 1.0, 4e-06]

    Source: Smith and Topin, Super-Convergence, arXiv 1708.07120; torch's OneCycleLR.
    """
    peak = nonnegative("peak", peak)
    first = peak / positive("div_factor", div_factor)
    last = first / positive("final_div_factor", final_div_factor)
    values = [first, peak, first, last] if three_phase else [first, peak, last]
    return _cycle(values, total_steps, pct_start, shape, three_phase)


def one_cycle_momentum(
    total_steps: int,
    *,
    low: float = 0.85,
    high: float = 0.95,
    pct_start: float = 0.3,
    shape: str = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """The momentum for :func:`one_cycle`: low where the learning rate is high.

    Formula:
        high to low over the rise, low to high over the fall, then high

    Args:
        total_steps, pct_start, shape, three_phase: as in :func:`one_cycle`.
        low, high: finite, >= 0.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> beta1 = schedules.one_cycle_momentum(total_steps=10)
        >>> [round(beta1(t), 6) for t in (0, 2, 9)]
        [0.95, 0.85, 0.95]

    Source: torch.optim.lr_scheduler.OneCycleLR with cycle_momentum.
    """
    low = nonnegative("low", low)
    high = nonnegative("high", high)
    values = [high, low, high, high] if three_phase else [high, low, high]
    return _cycle(values, total_steps, pct_start, shape, three_phase)


def _cycle(
    values: list[float], total_steps: int, pct_start: float, shape: str, three_phase: bool
) -> Schedule:
    """Ramps between the values; as in torch, a phase may end at a fraction of a step."""
    total_steps = whole("total_steps", total_steps, minimum=2)
    pct_start = positive("pct_start", pct_start)
    limit = 0.5 if three_phase else 1.0
    if pct_start >= limit:
        raise ValueError(f"pct_start: must be less than {limit}, got {pct_start}")
    if pct_start * total_steps <= 1.0:
        raise ValueError(
            f"pct_start: must be greater than 1 / total_steps = {1 / total_steps}, got {pct_start}"
        )
    one_of("shape", shape, ANNEAL_SHAPES)
    rise = pct_start * total_steps
    ends = [0.0, rise - 1.0, total_steps - 1.0]
    if three_phase:
        ends.insert(2, 2.0 * rise - 2.0)
    cycle: Schedule = as_schedule(values[-1])
    for i in range(len(values) - 2, -1, -1):
        done = ((step - ends[i]) if i else step) / (ends[i + 1] - ends[i])
        if shape == "cosine":
            phase = mix(values[i], values[i + 1], squared_cosine(done * (math.pi / 2)))
        else:
            phase = mix(values[i + 1], values[i], done)
        # Steps are whole numbers: step <= x is step <= floor(x).
        cycle = select(less_equal(step, math.floor(ends[i + 1])), phase, cycle)
    return cycle
