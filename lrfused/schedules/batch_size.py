"""What another batch size changes: the learning rate and the length of the warmup."""

import math
from typing import overload

from lrfused.schedules.check import nonnegative, one_of, whole
from lrfused.schedules.expression import MAX_STEP, Schedule


@overload
def scale_lr(lr: Schedule, batch: int, base: int, rule: str = "linear") -> Schedule: ...
@overload
def scale_lr(lr: float, batch: int, base: int, rule: str = "linear") -> float: ...
def scale_lr(lr: Schedule | float, batch: int, base: int, rule: str = "linear") -> Schedule | float:
    """The learning rate for another batch size.

    Formula:
        lr * batch / base         rule "linear" (SGD)
        lr * sqrt(batch / base)   rule "sqrt" (adaptive optimizers, LAMB)

    Args:
        lr: the lr that suits the batch size ``base``: a number >= 0 or a Schedule, which keeps its
            shape and its length in updates.
        batch: batch size of an update, over all ranks and accumulated micro-batches, >= 1.
        base: the batch size of ``lr``, in the same unit (samples or tokens), >= 1.
        rule: "linear" or "sqrt".

    Returns:
        a Schedule if lr is one, else a number.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of its range, or the lr is
            beyond float64 when it is scaled.

    Example:
        >>> from lrfused import schedules
        >>> schedules.scale_lr(0.1, batch=8192, base=256)
        3.2
        >>> lr = schedules.linear(0.1, 0.0, steps=100)
        >>> schedules.scale_lr(lr, batch=1024, base=256, rule="sqrt")(0)
        0.2

    Source: Goyal et al., arXiv 1706.02677, section 2.1 (linear); Krizhevsky, arXiv 1404.5997,
    section 4, and Malladi et al., arXiv 2205.10287 (sqrt).
    """
    batch = whole("batch", batch, minimum=1)
    base = whole("base", base, minimum=1)
    one_of("rule", rule, ("linear", "sqrt"))
    factor = batch / base if rule == "linear" else math.sqrt(batch / base)
    if isinstance(lr, Schedule):
        return lr.scaled(factor)
    scaled = nonnegative("lr", lr) * factor
    if not math.isfinite(scaled):
        raise ValueError(f"lr: must be finite when it is scaled, got {lr} * {factor}")
    return scaled


def warmup_steps_for_batch(steps: int, batch: int, base: int, rule: str = "linear") -> int:
    """The length of the warmup for another batch size.

    Formula, rounded up to a whole update:
        steps * batch / base         rule "linear"
        steps * sqrt(batch / base)   rule "sqrt"
        steps * base / batch         rule "samples"

    With the rule of :func:`scale_lr`, a linear warmup rises by as much per update as it does for
    the base batch size, to a higher peak: a larger batch has the longer warmup. "samples" keeps
    the number of samples, so of epochs, of the warmup, as Goyal et al. do (5 epochs). (With LAMB's
    rule, epochs of warmup proportional to the batch size, the number of updates stays the same.)

    Args:
        steps: length of the warmup in updates that suits the batch size ``base``, >= 0.
        batch: batch size of an update, over all ranks and accumulated micro-batches, >= 1.
        base: the batch size of ``steps``, in the same unit (samples or tokens), >= 1.
        rule: "linear", "sqrt" or "samples".

    Returns:
        updates, >= 0; 0 only if ``steps`` is 0.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of its range, or the result
            is beyond 2**53 updates.

    Example:
        >>> from lrfused import schedules
        >>> rules = ("linear", "sqrt", "samples")
        >>> [schedules.warmup_steps_for_batch(500, 1024, 256, rule) for rule in rules]
        [2000, 1000, 125]

    Source: Goyal et al., arXiv 1706.02677, section 2.2 (samples); You et al., arXiv 1904.00962,
    section 4 (LAMB).
    """
    steps = whole("steps", steps, minimum=0)
    batch = whole("batch", batch, minimum=1)
    base = whole("base", base, minimum=1)
    one_of("rule", rule, ("linear", "sqrt", "samples"))
    if rule == "linear":
        scaled = -(-steps * batch // base)
    elif rule == "samples":
        scaled = -(-steps * base // batch)
    else:
        square = -(-steps * steps * batch // base)  # n >= sqrt(x) if and only if n**2 >= ceil(x)
        root = math.isqrt(square)
        scaled = root + (root * root < square)
    if scaled > MAX_STEP:
        raise ValueError(f"steps: must be at most 2**53 when scaled, got {steps}, scaled {scaled}")
    return scaled
