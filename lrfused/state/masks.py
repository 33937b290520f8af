"""Masks: which elements of a parameter are trained, as one bit each in the kernels' order."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lrfused.memory.bits import pack, unpack
from lrfused.memory.checks import PLAIN, is_freed
from lrfused.memory.dtensor import as_local_of, is_distributed, local, placing
from lrfused.memory.operands import Operand, real_view
from lrfused.warn import warn

# In the state of a checkpoint: a bool tensor shaped like the parameter. In that of an optimizer:
# None, since torch's flattened form carries only what has a key in memory.
KEY = "lrfused_mask"


Found = dict[Tensor, Tensor]  # masks by parameter; local tensors


@dataclass
class Packed:
    """The bits of a mask in the memory order of a tensor with this shape and these strides.

    One that was taken away while a captured graph reads it is no longer ``shown``: it keeps
    everything.
    """

    bits: Tensor
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    shown: bool = True

    @property
    def order(self) -> Tensor:
        """A tensor without memory, in this order."""
        return torch.empty_strided(self.shape, self.strides, device="meta")


class Masks:
    """The masks of an optimizer's parameters.

    Memory that a table was bound to stays where it is until ``version`` rises.
    """

    def __init__(self) -> None:
        self.version = 0
        self._packed: dict[Tensor, Packed] = {}

    def __contains__(self, param: Tensor) -> bool:
        """The parameter has memory for a mask, shown or not."""
        return param in self._packed

    def shown(self, params: Iterable[Tensor]) -> dict[Tensor, Tensor]:
        """The masks of these, each as a new bool tensor shaped and placed like its parameter."""
        held = ((p, self._packed[p]) for p in params if p in self._packed)
        return {p: _unpacked(packed, p) for p, packed in held if packed.shown}

    def drop_all_but(self, params: Iterable[Tensor]) -> None:
        """Forget the masks of parameters that are no longer there."""
        kept = {id(param) for param in params}
        for param in [p for p in self._packed if id(p) not in kept]:
            if self._packed[param].shown:
                warn(
                    f"masks: that of a parameter of shape {tuple(param.shape)}, which is no longer "
                    "among the optimizer's parameters, was dropped"
                )
            del self._packed[param]

    def set(self, param: Tensor, mask: Tensor) -> None:
        """Set or replace a mask, in place if there was one."""
        packed = self._packed.get(param)
        if packed is None:
            real = real_view(local(param).detach())
            order = torch.empty(real.shape, device="meta")
            packed = Packed(_bits(mask, order), tuple(order.shape), order.stride())
            self.version += 1  # first, in case of an interrupt in between
            self._packed[param] = packed
        else:
            packed.bits.copy_(_bits(mask, packed.order))
            packed.shown = True

    def take_away(self, param: Tensor, keeps_memory: bool) -> None:
        """Take a mask away; with ``keeps_memory`` it keeps every element instead."""
        packed = self._packed.get(param)
        if packed is None:
            return
        if keeps_memory:
            packed.bits.fill_(0xFF)
            packed.shown = False
        else:
            self.version += 1
            del self._packed[param]

    def mark(self, states: Any, params: Iterable[Tensor]) -> None:
        """Give the states of these parameters the key of a mask, if they have one."""
        for param in params if self._packed else ():
            if param in self._packed and self._packed[param].shown:
                states[param][KEY] = None

    def found_in(self, states: Any, params: Iterable[Tensor], are_fixed: bool) -> Found:
        """The masks that loaded states have, checked; nothing is changed.

        ``are_fixed``: a captured graph reads those that there are.

        Raises:
            ValueError: not a mask of its parameter.
        """
        held = ((param, (states.get(param) or {}).get(KEY)) for param in params)
        found = {param: _loaded(param, stored) for param, stored in held if stored is not None}
        for param in found:
            if are_fixed and param not in self:
                raise ValueError(
                    f"{_named(param)} must be set before a step is captured in a CUDA graph"
                )
        return found

    def bits(
        self, param: Tensor, order: Tensor, device: torch.device, are_fixed: bool
    ) -> Tensor | None:
        """The bits for kernels that read the parameter in this order; None without a mask.

        Raises:
            RuntimeError: they would have to move, and a captured graph reads them.
            ValueError: the parameter has another number of elements than the mask.
        """
        packed = self._packed.get(param)
        if packed is None:
            return None
        where = (tuple(order.shape), order.stride(), device)
        if where == (packed.shape, packed.strides, packed.bits.device):
            return packed.bits
        if are_fixed:
            raise RuntimeError(
                f"{_named(param)}: the parameter has another layout or device than when a step "
                "was captured in a CUDA graph, which reads the mask; put it back"
            )
        if order.numel() != math.prod(packed.shape):
            raise ValueError(
                f"{_named(param)}: has {math.prod(packed.shape)} elements; set another mask"
            )
        if (packed.shape, packed.strides) != (tuple(order.shape), order.stride()):
            flat = unpack(packed.bits, order.numel())
            bits = pack(_in_order(_as_tensor(flat, packed.order), order))
            packed = Packed(bits, tuple(order.shape), order.stride(), packed.shown)
        packed = replace(packed, bits=packed.bits.to(device))
        self._packed[param] = packed
        return packed.bits


@torch.no_grad()
def clear(tensors: Iterable[Tensor], mask: Tensor) -> None:
    """Make these 0 where the mask does not keep them; a parameter and its state, say."""
    for tensor in tensors:
        own = local(tensor.detach())
        own.masked_fill_(~local(mask).to(own.device), 0)


def check_fits(what: str, mask: Tensor, param: Tensor) -> None:
    """Refuse a mask that does not lie as its parameter does.

    Raises:
        ValueError: another shape, other placements, or no values.
    """
    if mask.shape != param.shape:
        raise ValueError(f"{what} must have its shape, got {tuple(mask.shape)}")
    if is_distributed(mask) != is_distributed(param) or (
        is_distributed(param) and placing(mask) != placing(param)
    ):
        raise ValueError(f"{what} must be a DTensor with its placements, as the parameter")
    if mask.is_meta:
        raise ValueError(f"{what} is on the meta device: it has no values")


def _loaded(param: Tensor, stored: Any) -> Tensor:
    """A mask out of a checkpoint, where it may have the dtype of the parameter, on its device."""
    what = _named(param)
    if not isinstance(stored, Tensor) or stored.layout != torch.strided:
        raise ValueError(f"{what} must be a dense tensor of bools, got {stored!r:.80}")
    if type(stored) not in PLAIN and not is_distributed(stored):
        raise ValueError(f"{what} is of type {type(stored).__name__}; only Tensor is supported")
    check_fits(what, stored, param)
    mask = local(stored)
    if is_freed(mask):
        raise ValueError(f"{what} has no memory (its storage was freed)")
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(f"{what} must have the values 0 and 1 only, and is {mask.dtype}")
    return (mask != 0).to(local(param).device)


def _named(param: Tensor) -> str:
    return f"{KEY} of a parameter of shape {tuple(param.shape)}"


def _bits(mask: Tensor, order: Tensor) -> Tensor:
    mask = local(mask)
    if mask.dim() < order.dim():  # of a complex parameter, as pairs
        mask = torch.stack((mask, mask), -1)
    return pack(_in_order(mask, order))


def _in_order(mask: Tensor, order: Tensor) -> Tensor:
    return Operand.of(mask, order).flat


def _as_tensor(flat: Tensor, order: Tensor) -> Tensor:
    made = torch.empty_strided(order.shape, order.stride(), dtype=flat.dtype, device=flat.device)
    made.as_strided((flat.numel(),), (1,)).copy_(flat)
    return made


def _unpacked(packed: Packed, param: Tensor) -> Tensor:
    order = packed.order
    mask = _as_tensor(unpack(packed.bits, order.numel()), order)
    if param.is_complex():
        mask = mask[..., 0]
    return as_local_of(param, mask.contiguous())
