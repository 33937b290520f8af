"""from_torch: converts a torch scheduler to a schedule."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.optim import lr_scheduler

from lrfused.schedules.bytecode import MAX_INSTRUCTIONS
from lrfused.schedules.check import one_of, whole
from lrfused.schedules.expression import Schedule
from lrfused.schedules.torch_copies import rows, sampled
from lrfused.schedules.torch_forms import FACTORS, HORIZON, NoExpression, momentum, piecewise, rate
from lrfused.schedules.torch_lambdas import sampled_functions

COMPOUND = (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)
CYCLING_MOMENTUM = (lr_scheduler.CyclicLR, lr_scheduler.OneCycleLR)
KNOWN = {
    *FACTORS,
    *COMPOUND,
    *CYCLING_MOMENTUM,
    lr_scheduler.CosineAnnealingLR,
    lr_scheduler.CosineAnnealingWarmRestarts,
    lr_scheduler.LambdaLR,
    lr_scheduler.MultiplicativeLR,
}


def from_torch(
    scheduler: lr_scheduler.LRScheduler, steps: int | None = None, *, what: str = "lr"
) -> Schedule | list[Schedule]:
    """The schedule of one of torch's schedulers that has not been stepped yet.

    StepLR, MultiStepLR, ConstantLR, LinearLR, ExponentialLR, PolynomialLR, CosineAnnealingLR,
    CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR and SequentialLR of these become
    expressions. Anything else (LambdaLR, MultiplicativeLR, ChainedScheduler, a SequentialLR of
    these, a scale_fn, the momentum of a SequentialLR) is sampled: a copy is stepped, and its last
    value is kept from then on. The groups of a LambdaLR that share a function share its table, each
    times its base lr. The scheduler and its optimizer are not changed.

    Args:
        scheduler: as its constructor left it, with the lrs that it wrote.
        steps: the last step to sample, >= 0; needed only if something is sampled.
        what: "lr", or "momentum" for the momentum (beta1 in Adam) of CyclicLR and OneCycleLR.

    Returns:
        One Schedule if all parameter groups agree, else a list with one per group.

    Raises:
        TypeError: not one of torch's schedulers, or an unknown one.
        ValueError: it was stepped; ``steps`` is missing; the momentum is not cycled; or it is
            ReduceLROnPlateau, which follows a metric that is not known in advance.

    Example:
        >>> import torch
        >>> from lrfused import schedules
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
        >>> halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
        >>> schedules.from_torch(halving)
        Schedule(0.1 * 0.5**floor(step / 10))
    """
    one_of("what", what, ("lr", "momentum"))
    if steps is not None:
        whole("steps", steps, minimum=0)
    _check(scheduler)
    if what == "momentum" and not any(_cycles_momentum(s) for s in _parts(scheduler)):
        raise ValueError(f"what: {type(scheduler).__name__} leaves the momentum alone")
    try:
        schedules = _expressions(scheduler, what)
    except NoExpression as reason:
        if steps is None:
            raise ValueError(
                f"steps: must be given, it is the last step to sample, because {reason}"
            ) from None
        by_function = sampled_functions(scheduler, steps) if what == "lr" else None
        schedules = sampled(scheduler, steps, what) if by_function is None else by_function
    return schedules[0] if len(set(schedules)) == 1 else schedules


def _parts(scheduler: Any) -> Iterator[Any]:
    """The scheduler and, recursively, its parts."""
    yield scheduler
    if isinstance(scheduler, COMPOUND):
        for part in scheduler._schedulers:
            yield from _parts(part)


def _cycles_momentum(scheduler: Any) -> bool:
    return isinstance(scheduler, CYCLING_MOMENTUM) and scheduler.cycle_momentum


def _check(scheduler: Any) -> None:
    """Refuse a scheduler that is unknown, or not as its constructor left it."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        raise ValueError(
            "scheduler: ReduceLROnPlateau follows a metric, not the step; multiply a schedule "
            'by schedules.input(tensor, "name") and change the tensor when the metric says so'
        )
    for part in _parts(scheduler):
        if type(part) not in KNOWN:
            raise TypeError(
                f"scheduler: must be one of torch.optim.lr_scheduler's own, got "
                f"{type(part).__module__}.{type(part).__qualname__}; "
                f"schedules.from_function(fn, steps) samples any function"
            )
    if _last_epoch(scheduler):
        raise ValueError(
            f"scheduler: must be as its constructor left it, at last_epoch 0, "
            f"got last_epoch {_last_epoch(scheduler)}"
        )
    current = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
    written = [float(lr) for lr in scheduler.get_last_lr()]
    if current != written:
        raise ValueError(
            f"scheduler: the lrs must be those that it wrote, {written}; they are now {current}"
        )


def _last_epoch(scheduler: Any) -> int:
    """The last_epoch; the first nonzero one if there are several."""
    if isinstance(scheduler, lr_scheduler.ChainedScheduler):  # it has no count of its own
        return next(filter(None, map(_last_epoch, scheduler._schedulers)), 0)
    return int(scheduler.last_epoch)


def _expressions(scheduler: Any, what: str) -> list[Schedule]:
    schedules = []
    for g, group in enumerate(scheduler.optimizer.param_groups):
        if what == "momentum":
            schedule = momentum(scheduler, g)
        elif isinstance(scheduler, lr_scheduler.SequentialLR):
            schedule = _sequence(scheduler, g, float(group["lr"]))
        elif isinstance(scheduler, lr_scheduler.ChainedScheduler):
            raise NoExpression("ChainedScheduler has no expression")
        else:
            schedule = rate(scheduler, g, float(group["lr"]))
        try:
            _ = schedule.program
        except ValueError:
            name = type(scheduler).__name__
            raise NoExpression(f"{name} needs more than {MAX_INSTRUCTIONS} instructions") from None
        schedules.append(schedule)
    return schedules


def _sequence(scheduler: Any, group: int, start: float) -> Schedule:
    """SequentialLR: each part on its own clock, starting from its base lr at its milestone."""
    _check_sequence(scheduler, group)
    parts, milestones = scheduler._schedulers, [int(m) for m in scheduler._milestones]
    begins, starts = [0, *(max(m, 0) for m in milestones)], [start] + len(milestones) * [None]
    now = bisect_right(milestones, 0)
    starts[now] = start
    if now and parts[now].last_epoch != 0:
        # Up to torch 2.12 the first part sets the value of step 0 whatever the milestones are; the
        # part that should have set it starts at step 1, and continues from the lr it finds there.
        late = bisect_right(milestones, 1)
        begins[1 : late + 1] = late * [1]
        if milestones[late - 1] < 1:
            starts[late] = float(rows(scheduler, 1, "lr")[1, group])
    ends = [*begins[1:], begins[-1] + HORIZON]
    pieces = []
    for part, first, begin, end in zip(parts, starts, begins, ends, strict=True):
        piece = rate(part, group, first, max(end - begin, 1))
        pieces.append(piece.shifted(begin) if begin else piece)
    return piecewise(pieces, begins[1:])


def _check_sequence(scheduler: Any, group: int) -> None:
    """Raise NoExpression if the parts do not simply follow each other, each on its own clock."""
    parts, lr = scheduler._schedulers, scheduler.optimizer.param_groups[group]["lr"]
    if [int(m) for m in scheduler._milestones] != sorted(scheduler._milestones):
        raise NoExpression(
            f"SequentialLR's milestones {scheduler._milestones} are not whole numbers in order"
        )
    if len({id(part) for part in parts}) < len(parts):
        raise NoExpression("SequentialLR has the same scheduler twice")
    for part in parts:
        if isinstance(part, COMPOUND):
            raise NoExpression(f"SequentialLR of a {type(part).__name__} has no expression")
        if isinstance(lr, Tensor) and part.base_lrs[group] is lr:
            raise NoExpression("this torch's SequentialLR writes over base lrs that are tensors")
