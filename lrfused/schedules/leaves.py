"""Where a schedule's numbers may come from besides the step: a tensor, a table, a callable."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike

from lrfused.schedules.bytecode import Op
from lrfused.schedules.check import finite, whole
from lrfused.schedules.expression import INPUT_DTYPES, Schedule, step
from lrfused.schedules.nodes import INPUT


def input(tensor: torch.Tensor, name: str) -> Schedule:
    """A number that lives in a tensor and that the caller may change at any time.

    It is read at every update, on the device, in the step that uses it.

    Args:
        tensor: one element; float64, float32, bfloat16, float16, int64 or int32.
        name: what the value is called in ``repr``, ``to_dict`` and checkpoints.

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
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"tensor: must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.numel() != 1:
        raise ValueError(f"tensor: must have one element, got shape {tuple(tensor.shape)}")
    if tensor.dtype not in INPUT_DTYPES:
        raise TypeError(f"tensor: dtype must be one of {INPUT_DTYPES}, got {tensor.dtype}")
    if not isinstance(name, str):
        raise TypeError(f"name: must be a string, got {type(name).__name__}")
    if not name:
        raise ValueError("name: must not be empty")
    return Schedule(INPUT, payload=(tensor, name))


def table(values: ArrayLike) -> Schedule:
    """Tabulated values, one a step: linear between entries, the last one held.

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
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"values: must be a list of numbers: {error}") from None
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"values: must be a non-empty list of numbers, got shape {array.shape}")
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"values: must be finite, got {array[index]} at index {index}")
    array.setflags(write=False)
    return Schedule(Op.TABLE, (step,), array)


def from_function(fn: Callable[[int], float], steps: int) -> Schedule:
    """A callable sampled at steps 0 .. steps, the last value held.

    Args:
        fn: called with each step, returns a finite number.
        steps: the last step that is sampled, >= 0.

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
