"""Schedules composed of whole schedules: one after another, or on the clock of rounds."""

from collections.abc import Sequence
from typing import Any

from lrfused.schedules.check import increasing, whole
from lrfused.schedules.expression import Schedule, step
from lrfused.schedules.functions import floor, less, select


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
        expect_schedule(f"schedules[{i}]", schedule)
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


def per_round(schedule: Schedule, local_steps: int) -> Schedule:
    """A schedule that advances once per round of several local updates (federated learning).

    Formula:
        schedule(floor(step / local_steps))

    Args:
        schedule: on the clock of rounds.
        local_steps: updates per round, >= 1.

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
    expect_schedule("schedule", schedule)
    local_steps = whole("local_steps", local_steps, minimum=1)
    return schedule.at(floor(step / local_steps))


def expect_schedule(name: str, value: Any) -> None:
    """Refuse anything but a Schedule."""
    if not isinstance(value, Schedule):
        raise TypeError(f"{name}: must be a Schedule, got {type(value).__name__}")
