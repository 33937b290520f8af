"""The values of an argument over a whole run, for functions that solve for a number."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrfused.schedules.check import nonnegative, whole
from lrfused.schedules.expression import Schedule, as_schedule

LONGEST = 10**7  # steps: every one is evaluated


def run_length(name: str, steps: Any) -> int:
    """The checked length of a run in updates."""
    return whole(name, steps, minimum=1, maximum=LONGEST)


def checked_schedule(name: str, value: Any) -> Schedule:
    """A Schedule without inputs, or a number >= 0 as a constant one.

    Raises:
        TypeError: neither a Schedule nor a number.
        ValueError: a Schedule with inputs, whose later values nobody knows, or a negative number.
    """
    if not isinstance(value, Schedule):
        return as_schedule(nonnegative(name, value))
    if value.inputs:
        raise ValueError(f"{name}: must depend on the step alone, got a schedule with inputs")
    return value


def values_over_run(name: str, schedule: Schedule, steps: int) -> NDArray[np.float64]:
    """The values at steps 0 to ``steps`` - 1.

    Raises:
        ValueError: a value is negative or not finite.
    """
    values = schedule.values(np.arange(steps))
    wrong = ~(np.isfinite(values) & (values >= 0.0))
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"{name}: must be finite and not negative, got {values[first]} at step {first}"
        )
    return values
