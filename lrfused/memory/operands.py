"""Operands: the tensors of each parameter as flat vectors, in a fixed order.

Kernels iterate over memory, not shapes. A tensor whose elements are dense in the parameter's own
memory order is used in place; any other is staged: copied before the step into a buffer in that
order and, if the step wrote it, copied back after.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from lrfused.memory.dtensor import local
from lrfused.memory.formats import CODES

Numbers = tuple[int, ...]
Placement = tuple[int, torch.dtype, Numbers, Numbers]


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


def _placement(tensor: Tensor) -> Placement:
    """A strided tensor's address, dtype, shape and strides; equal ones are one object."""
    return tensor.data_ptr(), tensor.dtype, _one(tensor.shape), _one(tensor.stride())


@lru_cache(4096)
def _one(numbers: Numbers) -> Numbers:
    return numbers


@dataclass(eq=False, slots=True)
class Operand:
    """One tensor of a step as a vector; ``staged`` if the vector is a copy of it.

    Thousands are made at once, so there is one object for each, and no tensor for the vector before
    it is asked for.
    """

    tensor: Tensor
    pointer: int  # where the tensor lay when this was made, and how
    dtype: torch.dtype
    shape: Numbers
    strides: Numbers
    staged: Tensor | None = None
    _flat: Tensor | None = None

    @staticmethod
    def of(tensor: Tensor, order: Tensor) -> "Operand":
        """The tensor as a vector in the memory order of ``order``, which is dense."""
        tensor = local(tensor)
        made = Operand(tensor, *_placement(tensor))
        if not tensor.is_complex() and not tensor.is_neg():
            real, strides = tensor, made.strides
        elif is_lazy(tensor):
            return made._staged_as(real_view(tensor), order)
        else:
            real = real_view(tensor)
            strides = real.stride()
        is_aligned = made.pointer % real.element_size() == 0
        if is_aligned and (strides == order.stride() or _same_order(real, order)):
            return made
        return made._staged_as(real, order)

    def _staged_as(self, real: Tensor, order: Tensor) -> "Operand":
        shape, strides = order.shape, order.stride()
        self.staged = torch.empty_strided(shape, strides, dtype=real.dtype, device=real.device)
        self.staged.copy_(real)
        return self

    @staticmethod
    def elsewhere(operand: "Operand") -> "Operand":
        """One on another device: sizes and dtypes, and an address that is 0."""
        return replace(operand, _flat=operand.flat.to("meta"))

    @property
    def flat(self) -> Tensor:
        """The vector."""
        if self._flat is None:
            whole = real_view(self.tensor.detach()) if self.staged is None else self.staged
            self._flat = whole.as_strided((whole.numel(),), (1,))
        return self._flat

    @property
    def row(self) -> tuple[int, int, int]:
        """The vector's address, its dtype's code, and the number of its elements."""
        if self.staged is None and self._flat is None and self.dtype in CODES:
            return self.pointer, CODES[self.dtype], self.tensor.numel()
        return self.flat.data_ptr(), CODES[self.flat.dtype], self.flat.numel()

    def is_of(self, tensor: Tensor) -> bool:
        """True if it was made from this tensor, whose address and layout are unchanged."""
        tensor = local(tensor)
        if self.staged is not None and tensor is not self.tensor:
            return False  # it is copied from and to the tensor itself
        made_from = (self.pointer, self.dtype, self.shape, self.strides)
        return tensor.layout == torch.strided and _placement(tensor) == made_from

    def refresh(self) -> None:
        """Copy the tensor to the staging buffer, if there is one."""
        if self.staged is not None:
            self.staged.copy_(real_view(self.tensor))

    def write_back(self) -> None:
        """Copy the staging buffer, if there is one, back to the tensor."""
        if self.staged is not None:
            pairs = self.tensor.is_complex()
            self.tensor.copy_(torch.view_as_complex(self.staged) if pairs else self.staged)


@dataclass(eq=False, slots=True)
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
    device: torch.device  # where it lay when this was made: the caller may move it
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
    return Entry(param, group, 0, NOTHING.tensor, NOTHING, NOTHING.tensor.device, is_idle=True)


_EMPTY = torch.empty(0, device="cpu")
NOTHING = Operand(_EMPTY, *_placement(_EMPTY))


def make_entry(param: Tensor, group: int, in_units: bool) -> Entry:
    """The entry of a parameter, without the operands of its state yet.

    ``in_units``: each index of the first dimension is a unit.

    Raises:
        ValueError: two elements of the parameter share memory.
    """
    data = local(param)
    real = real_view(data)
    is_usual = real.is_contiguous() and not in_units
    if not is_usual and overlaps_itself(real):
        raise ValueError(
            f"params: elements of a parameter of shape {tuple(param.shape)} share memory "
            f"(strides {param.stride()})"
        )
    by_unit = in_units and real.dim() > 1 and not (param.is_complex() and param.dim() < 2)
    # A unit must be contiguous in memory, so the first dimension has to be the outermost.
    outermost = not by_unit or real.stride(0) * real.shape[0] >= real.numel()
    is_dense = is_usual or (_dense_order(real) and outermost)
    order = real if is_dense else torch.empty(real.shape, device="meta")
    unit = real.numel() // max(real.shape[0], 1) if by_unit else 0
    return Entry(param, group, unit, order, Operand.of(data, order), data.device)


def overlaps_itself(tensor: Tensor) -> bool:
    """True if two elements may share memory; False for every slice of a dense tensor."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False
