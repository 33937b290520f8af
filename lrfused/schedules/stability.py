"""The length of the warmup that keeps gradient descent stable."""

import math

import numpy as np
from numpy.typing import NDArray

from lrfused.schedules.check import positive
from lrfused.schedules.expression import MAX_STEP, Schedule
from lrfused.schedules.warmups import warmup_constant
from lrfused.schedules.whole_run import checked_schedule, run_length, values_over_run

ROUNDING = 1e-6  # relative: more than that of an lr to float32


def minimum_warmup_steps(
    peak: float, bound: Schedule | float, total_steps: int, *, limit: float = 2.0
) -> int:
    """The shortest linear warmup with which lr * curvature stays below the stability limit.

    Formula:
        the smallest w >= 1 with eta_w(t) * bound(t) < limit for all 0 <= t < total_steps, where
        eta_w(t) = peak * min((t + 1) / w, 1), which is warmup_constant(peak, w, start="1/n"), or
        that rounded to float32, as a step uses it, if it is larger. But for the rounding:
        1                                                   if peak * bound(t) < limit at all t
        floor(max (t + 1) * peak * bound(t) / limit) + 1    over the t where it is not, otherwise

    The bound on the largest eigenvalue of the Hessian is largest at the initialisation and falls
    during early training: give it as a Schedule. Where a constant bound forbids the peak, the
    warmup has to be longer than the whole run, so that the lr stays below limit / bound until the
    end: a result above total_steps says that this peak is never reached.

    Args:
        peak: the lr after the warmup, finite, > 0.
        bound: of the largest eigenvalue of the Hessian (per unit of lr), a number >= 0 or a
            Schedule of the step without inputs.
        total_steps: updates of the run, warmup included, 1 to 10**7.
        limit: of lr * curvature, > 0: 2 for gradient descent, 2 * (1 + momentum) with (heavy ball)
            momentum.

    Returns:
        updates, >= 1 (1 is no warmup: the first update has the peak).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of its range, the bound is negative or not finite at some
            step, or the warmup would exceed 2**53 updates.

    Example:
        >>> from lrfused import schedules
        >>> schedules.minimum_warmup_steps(0.1, bound=10.0, total_steps=1000)
        1
        >>> falling = schedules.exponential(80.0, 10.0, steps=100)
        >>> schedules.minimum_warmup_steps(0.1, falling, total_steps=1000)
        73
        >>> schedules.minimum_warmup_steps(0.1, bound=80.0, total_steps=1000)
        4001

    Source: Gilmer et al., A Loss Curvature Perspective on Training Instability in Deep Learning,
    arXiv 2110.04369; the stability limits are those of a quadratic function.
    """
    peak = positive("peak", peak)
    limit = positive("limit", limit)
    total_steps = run_length("total_steps", total_steps)
    curvature = values_over_run("bound", checked_schedule("bound", bound), total_steps)
    at_peak = float(_largest_lrs(np.array(peak)))
    with np.errstate(over="ignore"):
        steps = np.flatnonzero(at_peak * curvature >= limit)  # only there the warmup has to help
        if steps.size == 0:
            return 1
        curvature = curvature[steps]
        needed = float(((steps + 1) * (at_peak * curvature / limit)).max())
    if needed * (1.0 + ROUNDING) + 2.0 >= MAX_STEP:
        raise ValueError(
            f"peak: {peak} needs a warmup of more than 2**53 steps to stay below {limit} / bound"
        )

    def is_stable(length: int) -> bool:
        lr = warmup_constant(peak, length, start="1/n").values(steps)
        return bool((_largest_lrs(lr) * curvature < limit).all())

    # Rounding moves the result a little. By bisection: a longer warmup has no larger lr.
    low, high = math.floor(needed * (1.0 - ROUNDING)), math.floor(needed * (1.0 + ROUNDING)) + 2
    if low > 0 and is_stable(low):
        low = 0
    while not is_stable(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_stable(middle) else (middle, high)
    return high


def _largest_lrs(lrs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lrs of steps in float64, or in float32 where that is larger (and finite)."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = lrs.astype(np.float32).astype(np.float64)
    return np.where(np.isfinite(rounded), np.maximum(lrs, rounded), lrs)
