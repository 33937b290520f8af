"""Spans: which tensors lie where, so that a new one is compared with its neighbours only."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

# What two tensors of a kind are called in an error; of two kinds, as STATE.
PARAMS, STATE = "params: two parameters", "params and state: two tensors"


class Span(NamedTuple):
    """A tensor, its device, and the addresses of its first byte and of the byte after its last."""

    start: int
    end: int
    device: torch.device
    tensor: Tensor
    what: str


class Spans:
    """The memory of tensors, each of which belongs to an owner: disjoint ranges in order.

    The tensors in a range may interleave, like the columns of a matrix, but share no byte.
    """

    def __init__(self) -> None:
        self._ranges: dict[torch.device, _Ranges] = {}
        self._owned: dict[int, list[Span]] = {}

    def put(self, tensors: Iterable[tuple[int, str, Tensor]]) -> None:
        """Add tensors, each with its owner and with what two of its kind are called in an error.

        Raises:
            ValueError: two share memory; others may have been added.
        """
        new = [(owner, _span(what, x)) for owner, what, x in tensors if x.numel()]
        for owner, span in sorted(new, key=lambda one: one[1].start):
            self._ranges.setdefault(span.device, _Ranges()).add(span)
            self._owned.setdefault(owner, []).append(span)

    def drop(self, owner: int) -> None:
        """Forget the tensors of an owner, wherever they lie by now."""
        for span in self._owned.pop(owner, ()):
            self._ranges[span.device].remove(span)


class _Ranges:
    """Those of one device."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._inside: list[list[Span]] = []

    def add(self, span: Span) -> None:
        """Add a tensor; its range and those that it meets become one."""
        first = bisect_right(self._ends, span.start)
        last = bisect_left(self._starts, span.end, lo=first)
        others = [other for inside in self._inside[first:last] for other in inside]
        for other in others:
            if other.start < span.end and span.start < other.end and _share_a_byte(other, span):
                raise ValueError(
                    f"{other.what if other.what == span.what else STATE} share memory, of shapes "
                    f"{tuple(other.tensor.shape)} and {tuple(span.tensor.shape)}; pass the tensor "
                    "once"
                )
        inside = [*others, span]
        self._starts[first:last] = [min(one.start for one in inside)]
        self._ends[first:last] = [max(one.end for one in inside)]
        self._inside[first:last] = [inside]

    def remove(self, span: Span) -> None:
        """Remove a tensor; without it, those of its range may be apart."""
        place = bisect_right(self._ends, span.start)
        left = [other for other in self._inside[place] if other is not span]
        del self._starts[place], self._ends[place], self._inside[place]
        for other in left:
            self.add(other)


def _span(what: str, tensor: Tensor) -> Span:
    start, last = tensor.data_ptr(), 0
    for stride, size in zip(tensor.stride(), tensor.shape, strict=True):
        last += stride * (size - 1)
    end = start + (last + 1) * tensor.element_size()
    return Span(start, end, tensor.device, tensor, what)


def _share_a_byte(x: Span, y: Span) -> bool:
    """Mark the bytes of x, then read the marks with y's strides."""
    start = min(x.start, y.start)
    marks = torch.zeros(max(x.end, y.end) - start, dtype=torch.bool, device="cpu")

    def bytes_of(span: Span) -> Tensor:
        tensor, size = span.tensor, span.tensor.element_size()
        strides = [stride * size for stride in tensor.stride()]
        return marks.as_strided((*tensor.shape, size), (*strides, 1), span.start - start)

    bytes_of(x).fill_(True)
    return bool(bytes_of(y).any())
