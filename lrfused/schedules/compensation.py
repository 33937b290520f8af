"""Decoupled weight decay that makes up for the warmup of the learning rate."""

import sys

import numpy as np
from numpy.typing import NDArray

from lrfused.schedules.check import nonnegative, whole
from lrfused.schedules.expression import Schedule, as_schedule
from lrfused.schedules.phases import join
from lrfused.schedules.whole_run import checked_schedule, run_length, values_over_run

Values = NDArray[np.float64]

PRECISION = 1e-15  # relative, of the solution
CLOSE = 1e-12  # relative, of the logarithm of the shrinkage
ENOUGH = 200  # steps for bisection alone to find it


def compensated_decay(
    lr: Schedule | float,
    weight_decay: float,
    warmup_steps: int,
    total_steps: int,
    *,
    warmup_decay: float = 0.0,
    reference_lr: Schedule | float | None = None,
) -> Schedule:
    """Little or no decay during the warmup and more after it, with the same shrinkage in the end.

    Decoupled decay multiplies a weight by 1 - lr(t) * decay(t) at update t (AdamW and Lion with
    weight_decay_mode "lr"). Over a run of T = total_steps updates, weights without gradient shrink
    by the product of these factors: here exactly as much as with the constant weight_decay under
    the reference_lr.

    Formula:
        warmup_decay   for step < warmup_steps
        lambda_post    from then on (beyond total_steps, too)
        where lambda_post is the solution, in float64, of
        prod_{t < warmup_steps}       (1 - lr(t) * warmup_decay)
        * prod_{warmup_steps <= t < T} (1 - lr(t) * lambda_post)
        = prod_{t < T}                 (1 - reference_lr(t) * weight_decay)
        To first order in lr * decay, with all sums over these ranges,
        lambda_post ~ (weight_decay * sum reference_lr(t) - warmup_decay * sum_{t < warmup_steps}
        lr(t)) / sum_{t >= warmup_steps} lr(t)

    With the defaults, decay is off during the warmup, and the reference is the same run with a
    constant weight_decay. To keep the decay on during a warmup, but reach the shrinkage of a run
    without one (at its peak from the start), give ``warmup_decay=weight_decay`` and
    ``reference_lr=lr.at(schedules.maximum(schedules.step, warmup_steps))``.

    Args:
        lr: the lr of the run, a number >= 0 or a Schedule without inputs, >= 0 at every step.
        weight_decay: of the reference, finite, >= 0.
        warmup_steps: updates before the compensation begins, 0 <= warmup_steps < total_steps.
        total_steps: updates of the run, warmup included, at most 10**7.
        warmup_decay: decay during the warmup, finite, >= 0.
        reference_lr: the lr of the reference, a number or Schedule like lr; None: lr.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of its range; a factor of the warmup or of the reference is
            not positive; the warmup alone shrinks the weights more than the reference; lr is 0
            throughout after the warmup and nothing can be made up; or too few steps are left for
            the shrinkage: lr * lambda_post rounds to 1, or float64's steps of it are too coarse.

    Example:
        >>> import math
        >>> from lrfused import schedules
        >>> lr = schedules.warmup_constant(0.1, warmup_steps=4)
        >>> decay = schedules.compensated_decay(lr, 0.5, warmup_steps=4, total_steps=10)
        >>> decay(3), round(decay(4), 6)
        (0.0, 0.619759)
        >>> round(math.prod(1 - lr(t) * decay(t) for t in range(10)), 12)
        0.681214823657
        >>> round(math.prod(1 - lr(t) * 0.5 for t in range(10)), 12)
        0.681214823657

    Source: Loshchilov and Hutter, arXiv 1711.05101, whose decay follows the lr.
    """
    run = checked_schedule("lr", lr)
    reference = None if reference_lr is None else checked_schedule("reference_lr", reference_lr)
    weight_decay = nonnegative("weight_decay", weight_decay)
    warmup_decay = nonnegative("warmup_decay", warmup_decay)
    warmup_steps = whole("warmup_steps", warmup_steps, minimum=0)
    total_steps = run_length("total_steps", total_steps)
    if total_steps <= warmup_steps:
        raise ValueError(
            f"total_steps: must be greater than warmup_steps ({warmup_steps}), got {total_steps}"
        )
    lrs = values_over_run("lr", run, total_steps)
    wanted = _log_shrinkage(
        "weight_decay",
        lrs if reference is None else values_over_run("reference_lr", reference, total_steps),
        weight_decay,
    )
    done = _log_shrinkage("warmup_decay", lrs[:warmup_steps], warmup_decay)
    if done < wanted:
        raise ValueError(
            f"warmup_decay: {warmup_decay} shrinks the weights by {np.exp(done):.6g} during the "
            f"warmup, more than the whole run is to do, {np.exp(wanted):.6g}"
        )
    left = wanted - done
    decay = _decay_for(lrs[warmup_steps:], left)
    if not _reaches(lrs[warmup_steps:] * decay, left):
        raise ValueError(
            f"warmup_steps: too little of the run is left after {warmup_steps} of {total_steps} "
            f"updates to shrink the weights by exp({left:.6g}), to rounding, with every factor "
            "greater than 0"
        )
    post = as_schedule(decay)
    return join([as_schedule(warmup_decay), post], [warmup_steps]) if warmup_steps else post


def _log_shrinkage(name: str, lrs: Values, decay: float) -> float:
    """The logarithm of prod(1 - lr * decay)."""
    with np.errstate(over="ignore"):
        products = lrs * decay
    if not (products < 1.0).all():
        step = int((products >= 1.0).argmax())
        raise ValueError(
            f"{name}: times the lr must be less than 1, got {decay} * {lrs[step]} at step {step}"
        )
    return float(np.log1p(-products).sum())


def _reaches(products: Values, wanted: float) -> bool:
    """Whether the shrinkage by 1 - products is the wanted one, but for rounding."""
    if not products.max() < 1.0:
        return False
    error = abs(float(np.log1p(-products).sum()) - wanted)
    # What the rounding of the decay itself is of the sum: much where a factor is nearly 0.
    rounding = sys.float_info.epsilon * float((products / (1.0 - products)).sum())
    return error <= CLOSE * abs(wanted) + min(4.0 * rounding, 1e-9) + sys.float_info.min


def _decay_for(lrs: Values, wanted: float) -> float:
    """The decay with sum(log1p(-lrs * decay)) = wanted <= 0, if there is one in float64."""
    if wanted == 0.0:
        return 0.0
    largest = float(lrs.max())
    if largest < sys.float_info.min:
        raise ValueError("lr: is 0 at every step after the warmup, so no decay makes up for it")
    with np.errstate(divide="ignore", invalid="ignore"):  # where no decay is enough
        return _solve(lrs / largest, wanted) / largest


def _solve(shares: Values, wanted: float) -> float:
    """The x with sum(log1p(-shares * x)) = wanted, the largest share 1: Newton in a bracket.

    The sum falls from 0 to -inf at x = 1 and is concave, so Newton's steps from the right of the
    solution never cross it. The first-order solution is to the right: log1p(-x) <= -x.
    """
    low, high = 0.0, min(-wanted / float(shares.sum()), 1.0)
    x = high if high < 1.0 else 0.5
    for _ in range(ENOUGH):
        excess = float(np.log1p(-shares * x).sum()) - wanted
        low, high = (x, high) if excess > 0.0 else (low, x)
        newton = x + excess / float((shares / (1.0 - shares * x)).sum())
        if abs(newton - x) <= PRECISION * x:
            return newton
        x = newton if low < newton < high else (low + high) / 2
    return x
