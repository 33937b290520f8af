"""Schedules of several phases: warmup of anything, joins, warmup-stable-decay, one cycle.

Every length is that phase's own length in updates, never a total that includes the warmup;
the arguments that are totals are called ``total_steps``.
"""

import math
from collections.abc import Sequence

from lrfused.schedules.check import nonnegative, one_of, positive, whole
from lrfused.schedules.expression import (
    Schedule,
    as_schedule,
    cos,
    floor,
    less,
    less_equal,
    select,
    step,
)
from lrfused.schedules.ramps import constant, cosine, increasing, linear, mix, ramp

WARMUP_SHAPES = ("linear", "cosine", "exponential", "polynomial")
DECAY_SHAPES = ("linear", "cosine", "sqrt", "exponential")
ANNEAL_SHAPES = ("cosine", "linear")


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after another, each on its own clock.

    Formula:
        schedules[0](step)                     for step < boundaries[0]
        schedules[i](step - boundaries[i-1])   for boundaries[i-1] <= step < boundaries[i]
        schedules[-1](step - boundaries[-1])   from the last boundary on

    Args:
        schedules: at least one.
        boundaries: steps at which the next one starts, >= 1, strictly increasing, one fewer
            than the schedules.

    Raises:
        TypeError: an item is not a Schedule.
        ValueError: the boundaries do not increase or their number does not fit.

    Example:
        >>> from lrfused import schedules
        >>> two = schedules.join([schedules.constant(1.0), schedules.linear(1.0, 0.0, 4)], [10])
        >>> two(9), two(11), two(14)
        (1.0, 0.75, 0.0)

    Source: optax.join_schedules, torch.optim.lr_scheduler.SequentialLR.
    """
    if not isinstance(schedules, Sequence):
        raise TypeError(f"schedules: must be a list of Schedules, got {type(schedules).__name__}")
    if not hasattr(boundaries, "__len__"):
        raise TypeError(f"boundaries: must be a list of steps, got {type(boundaries).__name__}")
    for i, schedule in enumerate(schedules):
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedules[{i}]: must be a Schedule, got {type(schedule).__name__}")
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"boundaries: must be one fewer than the schedules ({len(schedules)}), "
            f"got {len(boundaries)}"
        )
    starts = [0, *(increasing("boundaries", boundaries) if len(boundaries) else [])]
    joined = _delayed(schedules[-1], starts[-1])
    for i in range(len(schedules) - 2, -1, -1):
        joined = select(less(step, starts[i + 1]), _delayed(schedules[i], starts[i]), joined)
    return joined


def _delayed(schedule: Schedule, steps: int) -> Schedule:
    return schedule.shifted(steps) if steps else schedule


def warmup(
    schedule: Schedule, steps: int, *, start: float | str, shape: str = "linear", power: float = 2.0
) -> Schedule:
    """A rise to the first value of a schedule, then the schedule on its own clock.

    Formula:
        with peak = schedule(0), n = steps,
        start a number:  start + (peak - start) * (step / n)        for step < n
        start "1/n":     peak / n + (peak - peak / n) * (step / (n - 1)), which is
                         peak * (step + 1) / n                      for step < n
        schedule(step - n)                                          from then on
        (linear; the other shapes bend the fraction the same way as the ramps of that name,
        polynomial is ((step / n)**power))

    Args:
        schedule: what follows; it starts at step ``steps`` with its own step 0.
        steps: length of the rise in updates, >= 0 (0 leaves the schedule as it is).
        start: the first value (finite, >= 0; > 0 for the exponential shape), or "1/n" for
            one n-th of the peak, the peak being reached at the last update of the warmup.
        shape: "linear", "cosine", "exponential" or "polynomial".
        power: of the polynomial shape, > 0.

    Raises:
        TypeError: schedule is not a Schedule.
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> flat = schedules.constant(1.0)
        >>> [schedules.warmup(flat, 4, start=0.0)(t) for t in range(5)]
        [0.0, 0.25, 0.5, 0.75, 1.0]
        >>> [schedules.warmup(flat, 4, start="1/n")(t) for t in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]

    Source: Goyal et al., Accurate, Large Minibatch SGD, arXiv 1706.02677, section 2.2.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule: must be a Schedule, got {type(schedule).__name__}")
    steps = whole("steps", steps, minimum=0)
    one_of("shape", shape, WARMUP_SHAPES)
    power = positive("power", power)
    peak = schedule.at(0.0)
    if start == "1/n":
        first, intervals = peak / max(steps, 1), max(steps - 1, 0)
    elif isinstance(start, str):
        raise ValueError(f"start: must be a number or '1/n', got {start!r}")
    else:
        check = positive if shape == "exponential" else nonnegative
        first, intervals = as_schedule(check("start", start)), steps
    if shape == "exponential" and not peak.inputs:
        positive("schedule(0)", peak(0))
    if steps == 0:
        return schedule
    if shape == "linear" and start == "1/n":
        rise = peak * ((step + 1.0) / steps)
    elif shape == "polynomial":
        # The mirror image of the decaying ramp: slow first, then fast.
        fraction = (step / intervals) ** float(power) if intervals else as_schedule(1.0)
        rise = mix(peak, first, fraction)
    else:
        rise = ramp(first, peak, intervals, shape)
    return join([rise, schedule], [steps])


def warmup_cosine(
    peak: float,
    warmup_steps: int,
    total_steps: int,
    end: float = 0.0,
    *,
    start: float | str = 0.0,
) -> Schedule:
    """Linear warmup to the peak, then a cosine to the end.

    Formula:
        start + (peak - start) * step / warmup_steps          for step < warmup_steps
        end + (peak - end) * cos(pi/2 * (step - warmup_steps) / (total_steps - warmup_steps))**2
                                                              for step < total_steps
        end                                                   from then on

    Args:
        peak: finite, >= 0.
        warmup_steps: updates of warmup, >= 0.
        total_steps: updates in all, warmup included, > warmup_steps.
        end: finite, >= 0.
        start: first value of the warmup, a number >= 0 or "1/n".

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> lr = schedules.warmup_cosine(1.0, warmup_steps=2, total_steps=6)
        >>> [round(lr(t), 6) for t in (0, 1, 2, 4, 6)]
        [0.0, 0.5, 1.0, 0.5, 0.0]

    Source: transformers.get_cosine_schedule_with_warmup.
    """
    peak = nonnegative("peak", peak)
    decay_steps = _remaining(warmup_steps, total_steps)
    return warmup(cosine(peak, end, decay_steps), warmup_steps, start=start)


def warmup_linear(
    peak: float,
    warmup_steps: int,
    total_steps: int,
    end: float = 0.0,
    *,
    start: float | str = 0.0,
) -> Schedule:
    """Linear warmup to the peak, then a straight line to the end.

    Formula:
        start + (peak - start) * step / warmup_steps   for step < warmup_steps
        peak + (end - peak) * (step - warmup_steps) / (total_steps - warmup_steps)
                                                       for step < total_steps
        end                                            from then on

    Args:
        peak: finite, >= 0.
        warmup_steps: updates of warmup, >= 0.
        total_steps: updates in all, warmup included, > warmup_steps.
        end: finite, >= 0.
        start: first value of the warmup, a number >= 0 or "1/n".

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> lr = schedules.warmup_linear(1.0, warmup_steps=2, total_steps=6)
        >>> [lr(t) for t in (0, 1, 2, 4, 6)]
        [0.0, 0.5, 1.0, 0.5, 0.0]

    Source: transformers.get_linear_schedule_with_warmup.
    """
    peak = nonnegative("peak", peak)
    decay_steps = _remaining(warmup_steps, total_steps)
    return warmup(linear(peak, end, decay_steps), warmup_steps, start=start)


def _remaining(warmup_steps: int, total_steps: int) -> int:
    warmup_steps = whole("warmup_steps", warmup_steps, minimum=0)
    total_steps = whole("total_steps", total_steps, minimum=1)
    if total_steps <= warmup_steps:
        raise ValueError(
            f"total_steps: must be greater than warmup_steps ({warmup_steps}), got {total_steps}"
        )
    return total_steps - warmup_steps


def warmup_constant(peak: float, warmup_steps: int, *, start: float | str = 0.0) -> Schedule:
    """Linear warmup to the peak, which then holds.

    Formula:
        start + (peak - start) * step / warmup_steps   for step < warmup_steps
        peak                                           from then on

    Args:
        peak: finite, >= 0.
        warmup_steps: updates of warmup, >= 0.
        start: first value of the warmup, a number >= 0 or "1/n".

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> [schedules.warmup_constant(1.0, warmup_steps=4)(t) for t in (0, 1, 4, 99)]
        [0.0, 0.25, 1.0, 1.0]

    Source: transformers.get_constant_schedule_with_warmup.
    """
    warmup_steps = whole("warmup_steps", warmup_steps, minimum=0)
    return warmup(constant(nonnegative("peak", peak)), warmup_steps, start=start)


def wsd(
    peak: float,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    end: float = 0.0,
    *,
    shape: str = "linear",
    start: float | str = 0.0,
) -> Schedule:
    """Warmup, stable, decay: a rise to the peak, a plateau, a decay to the end.

    Formula:
        start + (peak - start) * step / warmup_steps   for step < warmup_steps
        peak                                           for the next stable_steps
        with x = the fraction of decay_steps done:
        linear       peak + (end - peak) * x
        cosine       end + (peak - end) * cos(pi/2 * x)**2
        sqrt         peak + (end - peak) * sqrt(x)
        exponential  peak * (end / peak)**x
        end                                            from then on

    Args:
        peak: finite, >= 0 (> 0 for exponential).
        warmup_steps: updates of warmup, >= 0.
        stable_steps: updates at the peak, >= 0.
        decay_steps: updates of decay, >= 1.
        end: finite, >= 0 (> 0 for exponential).
        shape: of the decay.
        start: first value of the warmup, a number >= 0 or "1/n".

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from lrfused import schedules
        >>> lr = schedules.wsd(1.0, warmup_steps=2, stable_steps=3, decay_steps=4)
        >>> [lr(t) for t in (1, 2, 5, 6, 9)]
        [0.5, 1.0, 1.0, 0.75, 0.0]

    Source: Hu et al., MiniCPM, arXiv 2404.06395; Hägele et al., arXiv 2405.18392 (1 - sqrt).
    """
    one_of("shape", shape, DECAY_SHAPES)
    check = positive if shape == "exponential" else nonnegative
    check("peak", peak)
    check("end", end)
    warmup_steps = whole("warmup_steps", warmup_steps, minimum=0)
    stable_steps = whole("stable_steps", stable_steps, minimum=0)
    decay_steps = whole("decay_steps", decay_steps, minimum=1)
    decay = ramp(float(peak), float(end), decay_steps, shape)
    plateau = join([constant(peak), decay], [stable_steps]) if stable_steps else decay
    return warmup(plateau, warmup_steps, start=start)


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
        total_steps: updates in all, >= 2.
        pct_start: fraction of the updates spent rising, 0 < pct_start < 1 (three_phase:
            < 1/2), with pct_start * total_steps > 1.
        shape: "cosine" or "linear".
        div_factor: peak / first value, > 0.
        final_div_factor: first value / last value, > 0.
        three_phase: come down the way it went up, then on to the last value.

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
    """The momentum that goes with :func:`one_cycle`: low where the learning rate is high.

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
    """Ramps between the values; the ends of the phases may be fractions of a step, as torch's."""
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
            half_turn = cos(done * (math.pi / 2))
            phase = mix(values[i], values[i + 1], half_turn * half_turn)
        else:
            phase = mix(values[i + 1], values[i], done)
        # Boundaries are whole numbers: step <= x is step <= floor(x).
        cycle = select(less_equal(step, math.floor(ends[i + 1])), phase, cycle)
    return cycle


def per_round(schedule: Schedule, local_steps: int) -> Schedule:
    """A schedule that moves once a round of several local updates (federated learning).

    Formula:
        schedule(floor(step / local_steps))

    Args:
        schedule: on the clock of rounds.
        local_steps: updates a round, >= 1.

    Raises:
        TypeError: schedule is not a Schedule.
        ValueError: local_steps < 1.

    Example:
        >>> from lrfused import schedules
        >>> lr = schedules.per_round(schedules.linear(1.0, 0.0, steps=4), local_steps=10)
        >>> lr(9), lr(10), lr(40)
        (1.0, 0.75, 0.0)

    Source: Reddi et al., Adaptive Federated Optimization, arXiv 2003.00295.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule: must be a Schedule, got {type(schedule).__name__}")
    local_steps = whole("local_steps", local_steps, minimum=1)
    return schedule.at(floor(step / local_steps))
