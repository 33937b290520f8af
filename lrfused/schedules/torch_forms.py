"""torch's schedulers as expressions of the step.

Most of torch's schedulers compute the new lr from the old one. These expressions equal the results
of those recursions, even where they differ from the scheduler's closed form: past the end, with
zero or fractional lengths, and from a first lr that is not the base lr.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import lr_scheduler

from lrfused.schedules.bytecode import MAX_INSTRUCTIONS
from lrfused.schedules.check import positive, whole
from lrfused.schedules.cycles import cosine_restarts
from lrfused.schedules.expression import MAX_STEP, Schedule, as_schedule, step
from lrfused.schedules.functions import floor, less, less_equal, minimum, select
from lrfused.schedules.shapes import mix, squared_cosine

HORIZON = 2**40
"""The number of steps for which restarts with growing cycles are written out."""


class NoExpression(Exception):
    """A scheduler that cannot be written as an expression; the message says why."""


def rate(
    scheduler: Any, group: int, start: float | None = None, horizon: int = HORIZON
) -> Schedule:
    """The lr of one group under a scheduler that is not a compound.

    Args:
        scheduler: as its constructor left it.
        group: index of the parameter group.
        start: the group's lr at step 0; None for the scheduler's own first value.
        horizon: updates after which the values do not matter.

    Raises:
        NoExpression: the scheduler has no expression.
    """
    kind, base = type(scheduler), float(scheduler.base_lrs[group])
    if kind in FACTORS:
        return _times(FACTORS[kind](scheduler), base, start)
    if kind is lr_scheduler.CosineAnnealingLR:
        return _cosine(scheduler, base, start)
    if kind is lr_scheduler.CosineAnnealingWarmRestarts:
        schedule = _restarts(scheduler, base, min(horizon, HORIZON))
    elif kind is lr_scheduler.CyclicLR:
        schedule = mix(float(scheduler.max_lrs[group]), base, _height(scheduler))
    elif kind is lr_scheduler.OneCycleLR:
        schedule = _one_cycle(scheduler, group, "lr")
    else:
        raise NoExpression(f"{kind.__name__} has no expression")
    # From step 1 on these use their base values, whatever the lr was before.
    if start is None or _same(start, schedule(0)):
        return schedule
    return piecewise([start, schedule], [1])


def momentum(scheduler: Any, group: int) -> Schedule:
    """The momentum, or beta1, of one group under a scheduler that cycles it.

    Raises:
        NoExpression: the scheduler's momentum has no expression.
    """
    if isinstance(scheduler, lr_scheduler.CyclicLR):
        low, high = scheduler.base_momentums[group], scheduler.max_momentums[group]
        return mix(float(low), float(high), _height(scheduler))
    if isinstance(scheduler, lr_scheduler.OneCycleLR):
        return _one_cycle(scheduler, group, "momentum")
    raise NoExpression(f"the momentum of {type(scheduler).__name__} has no expression")


def piecewise(pieces: Sequence[Schedule | float], boundaries: Sequence[int]) -> Schedule:
    """pieces[i] until the step reaches boundaries[i], the last piece from then on.

    The boundaries must not decrease; negative ones count as 0. The selects form a balanced tree, so
    that the expression stays shallow.

    Raises:
        NoExpression: too many for a program.
    """
    if 2 * len(boundaries) > MAX_INSTRUCTIONS:
        raise NoExpression(f"{len(pieces)} pieces are too many for one expression")
    if not boundaries:
        return as_schedule(pieces[0])
    middle = len(boundaries) // 2
    before = piecewise(pieces[: middle + 1], boundaries[:middle])
    after = piecewise(pieces[middle + 1 :], boundaries[middle + 1 :])
    return select(less(step, float(boundaries[middle])), before, after)


def _same(x: float, y: float) -> bool:
    """True if equal up to float32 rounding, since a tensor lr was rounded."""
    return math.isclose(x, y, rel_tol=1e-7)


def _times(factor: Schedule, base: float, start: float | None) -> Schedule:
    """An lr that torch multiplies from step to step, so that it is proportional to the first."""
    first = factor(0)
    if start is None or _same(start, base * first):
        return factor.scaled(base)
    if first == 0.0:
        raise NoExpression(f"the factor starts at 0 and the lr at {start}")
    return factor.scaled(start / first)


# Schedulers that multiply the base lr by a factor


def _step_lr(scheduler: Any) -> Schedule:
    every = scheduler.step_size
    if every != int(every):
        raise NoExpression(f"StepLR's step_size {every} is not a whole number")
    whole("step_size", int(every), minimum=1)
    return as_schedule(float(scheduler.gamma)) ** floor(step / float(every))


def _multi_step_lr(scheduler: Any) -> Schedule:
    counts = scheduler.milestones
    # A milestone between two steps is never reached.
    milestones = sorted(m for m in counts if m > 0 and m == int(m))
    drops = [sum(count for m, count in counts.items() if m <= 0)]
    for milestone in milestones:
        drops.append(drops[-1] + counts[milestone])
    gamma = as_schedule(float(scheduler.gamma))
    return piecewise([gamma**n for n in drops], milestones)


def _constant_lr(scheduler: Any) -> Schedule:
    factor, length = float(scheduler.factor), scheduler.total_iters
    if length != int(length):  # the step that would end it is never reached
        return as_schedule(factor)
    return piecewise([factor, 1.0], [int(length)])


def _linear_lr(scheduler: Any) -> Schedule:
    start, end, length = scheduler.start_factor, scheduler.end_factor, scheduler.total_iters
    if length < 1:  # torch keeps the first value
        return as_schedule(float(start))
    return mix(float(end), float(start), minimum(step, math.floor(length)) / float(length))


def _exponential_lr(scheduler: Any) -> Schedule:
    return as_schedule(float(scheduler.gamma)) ** step


def _polynomial_lr(scheduler: Any) -> Schedule:
    length = scheduler.total_iters
    if length < 1:
        return as_schedule(1.0)
    left = 1.0 - minimum(step, math.floor(length)) / float(length)
    return left ** float(scheduler.power)


FACTORS: dict[type, Callable[[Any], Schedule]] = {
    lr_scheduler.StepLR: _step_lr,
    lr_scheduler.MultiStepLR: _multi_step_lr,
    lr_scheduler.ConstantLR: _constant_lr,
    lr_scheduler.LinearLR: _linear_lr,
    lr_scheduler.ExponentialLR: _exponential_lr,
    lr_scheduler.PolynomialLR: _polynomial_lr,
}


# Cosines and cycles


def _cosine(scheduler: Any, base: float, start: float | None) -> Schedule:
    """Down to eta_min at T_max, up to the base lr at 2 T_max, and so on periodically."""
    length = positive("T_max", scheduler.T_max)
    angle = (step % (2.0 * length)) * (math.pi / (2.0 * length))
    top: Schedule | float = base
    if start is not None and not _same(start, base):
        if length != int(length):
            raise NoExpression(f"T_max is {length} and the lr starts at {start}, not at {base}")
        # After the first minimum torch rises to the base lr.
        top = select(less_equal(step, length), start, base)
    return mix(top, float(scheduler.eta_min), squared_cosine(angle))


def _restarts(scheduler: Any, base: float, horizon: int) -> Schedule:
    first, factor, end = scheduler.T_0, scheduler.T_mult, float(scheduler.eta_min)
    if factor == 1:
        return cosine_restarts(base, end, first)
    cycles, finish = 1, first
    while finish < horizon:
        cycles, finish = cycles + 1, finish * factor + first
    if finish > MAX_STEP:
        raise NoExpression(f"CosineAnnealingWarmRestarts has a cycle that ends at step {finish}")
    return cosine_restarts(base, end, first, factor, cycles)


def _height(scheduler: Any) -> Schedule:
    """CyclicLR's position between its base (0) and its maximum (1)."""
    if scheduler._scale_fn_custom is not None:
        raise NoExpression("CyclicLR with a scale_fn has no expression")
    length, rising = scheduler.total_size, scheduler.step_ratio * scheduler.total_size
    cycle = floor(step / length)
    position = step - cycle * length
    height = position / rising
    if rising < length:
        fall = (length - position) / (length - rising)
        height = select(less_equal(position, rising), height, fall)
    if scheduler.mode == "triangular2":
        return height * as_schedule(0.5) ** cycle
    if scheduler.mode == "exp_range":
        return height * as_schedule(float(scheduler.gamma)) ** step
    return height


def _one_cycle(scheduler: Any, group: int, what: str) -> Schedule:
    """The phases of OneCycleLR for the lr or the momentum.

    torch continues the last phase for one step beyond its end, and raises after that; here the end
    value is kept from there on.
    """
    values, total = scheduler.optimizer.param_groups[group], scheduler.total_steps
    pieces, boundaries, begin = [], [], 0.0
    for phase in scheduler._schedule_phases:
        start, end = (float(values[phase[f"{side}_{what}"]]) for side in ("start", "end"))
        finish = float(phase["end_step"])
        pieces.append(_anneal(scheduler, start, end, begin, finish))
        boundaries.append(min(math.floor(finish) + 1, total + 1))
        begin = finish
    boundaries[-1] = total + 1
    return piecewise([*pieces, end], boundaries)


def _anneal(scheduler: Any, start: float, end: float, begin: float, finish: float) -> Schedule:
    if begin == finish:
        return as_schedule(end)
    done = (step - begin if begin else step) / (finish - begin)
    if scheduler._anneal_func_type == "linear":
        return mix(end, start, done)
    return mix(start, end, squared_cosine(done * (math.pi / 2)))
