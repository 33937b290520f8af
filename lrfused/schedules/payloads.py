"""Checks the payloads of input and table nodes: a tensor with its name, an array."""

import hashlib
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

# The dtypes of an input's tensor.
INPUT_DTYPES = (
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
)
INPUT_CODES = {dtype: code for code, dtype in enumerate(INPUT_DTYPES)}
# The tables in use, by the hash of their bytes.
TABLES: "WeakValueDictionary[bytes, NDArray[np.float64]]" = WeakValueDictionary()


def input_payload(tensor: Any, name: Any) -> tuple[torch.Tensor, str]:
    """The payload of an input.

    Raises:
        TypeError: not a tensor of these dtypes, or the name is not a string.
        ValueError: not exactly one element, or the name is empty.
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
    return tensor, name


def table_payload(values: ArrayLike) -> NDArray[np.float64]:
    """The payload of a table: a copy that cannot be written to, one for all equal tables.

    Schedules that were sampled alike, loaded or copied, for 100 groups, say, hold one array.

    Raises:
        TypeError: not numbers.
        ValueError: empty, not one-dimensional, or not finite.
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
    return TABLES.setdefault(hashlib.sha256(array.data).digest(), array)
