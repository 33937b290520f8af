"""Operands: the tensors of each parameter as flat vectors, in a fixed order.

Kernels iterate over memory, not shapes. A tensor whose elements are dense in the parameter's own
memory order is used in place; any other is staged: copied before the step into a buffer in that
order and, if the step wrote it, copied back after.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrfused.memory.dtensor import local

Place = tuple[Any, ...]


def is_lazy(tensor: Tensor) -> bool:
    """True if torch deferred a conjugation or negation, so that memory and values differ."""
    return bool(tensor.is_conj() or tensor.is_neg())


def real_view(tensor: Tensor) -> Tensor:
    """Complex numbers as pairs of reals; a copy if the tensor is lazy."""
    if is_lazy(tensor):
        tensor = tensor.resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _dense_order(tensor: Tensor) -> bool:
    """True if the elements fill one range of memory without gaps or overlap, in some order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected = stride * size
    return True


def _same_order(tensor: Tensor, other: Tensor) -> bool:
    if tensor.stride() == other.stride():
        return True
    strides = zip(tensor.stride(), other.stride(), tensor.shape, strict=True)
    return all(a == b or size == 1 for a, b, size in strides)


def place_of(tensor: Tensor) -> Place:
    """A tensor's address, dtype, shape and strides; () if it is not strided."""
    if tensor.layout != torch.strided:
        return ()
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


@dataclass(eq=False)
class Operand:
    """One tensor of a step as a flat vector; ``staged`` if that vector is a copy of it."""

    tensor: Tensor
    flat: Tensor
    staged: Tensor | None = None
    place: Place = ()

    @staticmethod
    def of(tensor: Tensor, order: Tensor) -> "Operand":
        """The tensor as a vector in the memory order of ``order``, which is dense."""
        tensor = local(tensor)
        real, place = real_view(tensor), place_of(tensor)
        aligned = real.data_ptr() % real.element_size() == 0
        if _same_order(real, order) and aligned and not is_lazy(tensor):
            return Operand(tensor, real.as_strided((real.numel(),), (1,)), place=place)
        staged = torch.empty_strided(
            order.shape, order.stride(), dtype=real.dtype, device=real.device
        )
        staged.copy_(real)
        return Operand(tensor, staged.as_strided((staged.numel(),), (1,)), staged, place)

    def is_of(self, tensor: Tensor) -> bool:
        """True if it was made from this tensor, whose address and layout are unchanged."""
        return place_of(local(tensor)) == self.place

    def refresh(self) -> None:
        """Copy the tensor to the staging buffer, if there is one."""
        if self.staged is not None:
            self.staged.copy_(real_view(self.tensor))

    def write_back(self) -> None:
        """Copy the staging buffer, if there is one, back to the tensor."""
        if self.staged is not None:
            pairs = self.tensor.is_complex()
            self.tensor.copy_(torch.view_as_complex(self.staged) if pairs else self.staged)


@dataclass(eq=False)
class Entry:
    """A parameter with its rule's operands, None for those missing from the state.

    ``unit`` is the number of elements of an output unit, 0 without units. ``mask`` are the bits
    of a mask in the order of the vectors, 1 for what is kept.
    """

    param: Tensor
    group: int
    unit: int
    order: Tensor
    p: Operand
    state: tuple[Operand | None, ...] = ()
    is_idle: bool = False  # it has no part in steps: not checked
    mask: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """True if nothing is staged, so that a gradient of the same layout works in place."""
        copied = any(operand.staged is not None for operand in self.operands)
        return not copied and not self.p.tensor.is_complex()

    @property
    def average(self) -> Operand | None:
        """That of the parameter's average: after those of its rule (`UpdateRule.state_keys`)."""
        return self.state[-1] if self.state else None

    @property
    def operands(self) -> list[Operand]:
        """The operands that exist; before the first gradient there is no state."""
        return [self.p, *(operand for operand in self.state if operand is not None)]


def idle_entry(param: Tensor, group: int) -> Entry:
    """The entry of a parameter that has no part in steps."""
    nothing = torch.empty(0, device="cpu")
    return Entry(param, group, 0, nothing, Operand(nothing, nothing), is_idle=True)


def make_entry(param: Tensor, group: int, in_units: bool) -> Entry:
    """The entry of a parameter, without the operands of its state yet.

    ``in_units``: each index of the first dimension is a unit.

    Raises:
        ValueError: two elements of the parameter share memory.
    """
    data = local(param).detach()
    real = real_view(data)
    if overlaps_itself(real):
        raise ValueError(
            f"params: elements of a parameter of shape {tuple(param.shape)} share memory "
            f"(strides {param.stride()})"
        )
    by_unit = in_units and real.dim() > 1 and not (param.is_complex() and param.dim() < 2)
    # A unit must be contiguous in memory, so the first dimension has to be the outermost.
    outermost = not by_unit or real.stride(0) * real.shape[0] >= real.numel()
    order = real if _dense_order(real) and outermost else torch.empty(real.shape, device="meta")
    unit = real.numel() // max(real.shape[0], 1) if by_unit else 0
    return Entry(param, group, unit, order, Operand.of(data, order))


def overlaps_itself(tensor: Tensor) -> bool:
    """True if two elements may share memory; False for every slice of a dense tensor."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False
