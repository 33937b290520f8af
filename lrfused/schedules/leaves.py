"""Sources of a schedule's numbers besides the step: a tensor, a table, a callable."""

from collections.abc import Callable, Iterable

import torch
from numpy.typing import ArrayLike

from lrfused.schedules.bytecode import Op
from lrfused.schedules.check import finite, whole
from lrfused.schedules.expression import Schedule, step
from lrfused.schedules.nodes import INPUT
from lrfused.schedules.payloads import input_payload, table_payload


def input(tensor: torch.Tensor, name: str) -> Schedule:
    """A number in a tensor, which the caller may change at any time.

    It is read on the device at every update, by the step that uses it.

    Args:
        tensor: one element; float64, float32, bfloat16, float16, int64 or int32.
        name: the value's name in ``repr``, ``to_dict`` and checkpoints.

    Raises:
        TypeError: not a tensor of these dtypes, or the name is not a string.
        ValueError: not exactly one element, or the name is empty.

    Example:
        >>> import torch
        >>> from lrfused import schedules
        >>> noise = torch.tensor(0.5)
        >>> lr = 1e-2 * schedules.input(noise, "noise")
        >>> lr(0)
        0.005
        >>> _ = noise.fill_(0.25)
        >>> lr(0)
        0.0025
    """
    return Schedule(INPUT, payload=input_payload(tensor, name))


def table(values: ArrayLike) -> Schedule:
    """Tabulated values, one per step: linear between entries, constant after the last.

    Args:
        values: at least one finite number; entry t is the value at step t.

    Raises:
        ValueError: empty, not one-dimensional, or not finite.

    Example:
        >>> from lrfused import schedules
        >>> ramp = schedules.table([0.0, 1.0, 4.0])
        >>> ramp(1), ramp(9), ramp.at(schedules.step / 2)(3)
        (1.0, 4.0, 2.5)
    """
    return Schedule(Op.TABLE, (step,), table_payload(values))


def from_function(fn: Callable[[int], float], steps: int) -> Schedule:
    """A callable sampled at steps 0 .. steps; the last value is kept from then on.

    Args:
        fn: called with each step, returns a finite number.
        steps: the last step to sample, >= 0.

    Example:
        >>> from lrfused import schedules
        >>> schedules.from_function(lambda t: 1.0 / (1 + t), steps=100)(3)
        0.25
    """
    if not callable(fn):
        raise TypeError(f"fn: must be callable, got {type(fn).__name__}")
    whole("steps", steps, minimum=0)
    samples: Iterable[float] = (fn(t) for t in range(steps + 1))
    return table([finite(f"fn({t})", value) for t, value in enumerate(samples)])
