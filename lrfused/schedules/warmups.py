"""Warmup of any schedule, and the named schedules that begin with one.

Every length is the length of that phase alone in updates, never a total that includes the warmup;
arguments that are totals are called ``total_steps``.
"""

from lrfused.schedules.check import nonnegative, one_of, positive, whole
from lrfused.schedules.expression import Schedule, as_schedule, step
from lrfused.schedules.phases import expect_schedule, join
from lrfused.schedules.ramps import constant, cosine, linear
from lrfused.schedules.shapes import mix, ramp

WARMUP_SHAPES = ("linear", "cosine", "exponential", "polynomial")
DECAY_SHAPES = ("linear", "cosine", "sqrt", "exponential")


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
        (linear; the other shapes change the fraction like the ramps of that name,
        polynomial is ((step / n)**power))

    Args:
        schedule: the schedule that follows; it starts at step ``steps`` with its own step 0.
        steps: length of the rise in updates, >= 0 (0 returns the schedule unchanged).
        start: the first value (finite, >= 0; > 0 for the exponential shape), or "1/n" for
            one n-th of the peak, which is then reached at the last update of the warmup.
        shape: "linear", "cosine", "exponential" or "polynomial".
        power: exponent of the polynomial shape, > 0.

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
    expect_schedule("schedule", schedule)
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
        # The decaying ramp mirrored: slow first, then fast.
        fraction = (step / intervals) ** power if intervals else as_schedule(1.0)
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
        total_steps: total number of updates, warmup included, > warmup_steps.
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
        total_steps: total number of updates, warmup included, > warmup_steps.
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
    """Linear warmup to the peak, then constant.

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
    peak = check("peak", peak)
    end = check("end", end)
    warmup_steps = whole("warmup_steps", warmup_steps, minimum=0)
    stable_steps = whole("stable_steps", stable_steps, minimum=0)
    decay_steps = whole("decay_steps", decay_steps, minimum=1)
    decay = ramp(peak, end, decay_steps, shape)
    plateau = join([constant(peak), decay], [stable_steps]) if stable_steps else decay
    return warmup(plateau, warmup_steps, start=start)
