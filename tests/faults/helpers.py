"""Tensors in odd places of memory, and runs that can be compared as a whole."""

from dataclasses import dataclass
from typing import Any

import torch
from step.helpers import (  # the package beside this one
    INSTRUCTION_SETS,
    Run,
    assert_same_bits,
    assert_same_contents,
    bits,
    contents,
    host_numbers,
    needs_cpp,
    words,
)
from torch import Tensor

__all__ = [
    "INSTRUCTION_SETS",
    "Buffer",
    "Layout",
    "Run",
    "accepting",
    "assert_same_bits",
    "assert_same_contents",
    "assert_same_state",
    "bits",
    "everything",
    "needs_cpp",
    "normal",
]


def normal(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Normal values of any of the dtypes that a step takes."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, generator=generator, dtype=wide).to(dtype)


def accepting(value: Tensor) -> torch.nn.Parameter:
    """A parameter, not a copy, that accepts a gradient of any dtype."""
    parameter = torch.nn.Parameter(value)
    if hasattr(parameter, "grad_dtype"):  # newer torch refuses another dtype otherwise
        parameter.grad_dtype = None
    return parameter


# Layouts


@dataclass(frozen=True)
class Layout:
    """Where the elements of a tensor lie.

    The dimensions follow each other in memory as ``order`` says, outermost first; neighbours are
    ``step`` elements apart, ``pad`` elements follow each stretch of a dimension, ``offset`` come
    first. ``bit`` is that of a lazy conjugate ("conj") or a lazy sign ("neg").
    """

    order: tuple[int, ...]
    step: int = 1
    pad: int = 0
    offset: int = 0
    bit: str = ""

    def strides(self, shape: tuple[int, ...]) -> list[int]:
        """The strides of a tensor of a shape."""
        strides, stride = [0] * len(shape), self.step
        for dim in reversed(self.order):
            strides[dim] = stride
            stride = stride * max(shape[dim], 1) + self.pad
        return strides


class Buffer:
    """A tensor as a view into larger memory that is nan everywhere else."""

    def __init__(self, value: Tensor, layout: Layout):
        strides = layout.strides(tuple(value.shape))
        last = sum(s * (n - 1) for s, n in zip(strides, value.shape, strict=True))
        size = layout.offset + (last + 1 if value.numel() else 0) + 5
        self.memory = torch.full((size,), torch.nan, dtype=value.dtype)
        place = (value.shape, strides, layout.offset)
        plain = self.memory.as_strided(*place)
        plain.copy_(_lazily(value, layout.bit).resolve_conj().resolve_neg())
        self.view = _lazily(plain, layout.bit)
        self.outside = torch.ones(size, dtype=torch.bool)
        self.outside.as_strided(*place).fill_(False)

    def assert_only_inside(self) -> None:
        """Nothing was written beside the view."""
        assert torch.isnan(self.memory[self.outside]).all(), "memory beside a tensor was written"


def _lazily(x: Tensor, bit: str) -> Tensor:
    """The conjugate or the negative, only noted by a bit."""
    return {"": lambda: x, "conj": x.conj, "neg": lambda: torch._neg_view(x)}[bit]()


# Whole states


def everything(run: Run) -> dict[str, Any]:
    """All that a step may change: tensors, counters, metrics and the host's numbers."""
    return {"tensors": {**contents(run), **words(run)}, "numbers": host_numbers(run)}


def assert_same_state(got: dict[str, Any], want: dict[str, Any]) -> None:
    """The same in every bit."""
    __tracebackhide__ = True
    assert_same_contents(got["tensors"], want["tensors"])
    assert repr(got["numbers"]) == repr(want["numbers"])
