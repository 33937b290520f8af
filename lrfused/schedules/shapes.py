"""The shapes of ramps from one value to another."""

import math

from lrfused.schedules.expression import Schedule, as_schedule, step
from lrfused.schedules.functions import cos, less, minimum, select, sqrt


def mix(start: Schedule | float, end: Schedule | float, weight: Schedule) -> Schedule:
    """start * weight + end * (1 - weight): exact at weight 1 and at weight 0."""
    return as_schedule(start) * weight + as_schedule(end) * (1.0 - weight)


def squared_cosine(angle: Schedule) -> Schedule:
    """cos(angle)**2, from 1 at 0 to 0 at pi/2; (1 + cos) / 2 would lose precision near its end."""
    half_turn = cos(angle)
    return half_turn * half_turn


def ramp(
    start: Schedule | float, end: Schedule | float, steps: int, shape: str, power: float = 1.0
) -> Schedule:
    """From start (at step 0) to end (from step ``steps`` on) along one of the shapes.

    The only definition of the shapes; callers check the arguments.
    """
    if steps == 0:
        return as_schedule(end)
    if shape == "cosine":
        weight = squared_cosine(step * (math.pi / (2 * steps)))
        return mix(start, end, select(less(step, steps), weight, 0.0))
    if shape == "exponential":
        ratio = as_schedule(end) / start
        return select(less(step, steps), as_schedule(start) * ratio ** (step / steps), end)
    progress = minimum(step, steps) / steps
    if shape == "linear":
        return mix(end, start, progress)
    if shape == "sqrt":
        return mix(end, start, sqrt(progress))
    return mix(start, end, (1.0 - progress) ** power)
