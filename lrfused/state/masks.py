"""Masks: which elements of a parameter are trained, as one bit each in the kernels' order."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrfused.memory.bits import pack, unpack
from lrfused.memory.dtensor import as_local_of, local
from lrfused.memory.operands import Operand, real_view

KEY = "lrfused_mask"  # in the state of a checkpoint: a bool tensor shaped like the parameter


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

    def shown(self) -> dict[Tensor, Tensor]:
        """The masks, each as a new bool tensor shaped and placed like its parameter."""
        return {p: _unpacked(packed, p) for p, packed in self._packed.items() if packed.shown}

    def set(self, param: Tensor, mask: Tensor) -> None:
        """Set or replace a mask, in place if there was one."""
        packed = self._packed.get(param)
        if packed is None:
            real = real_view(local(param).detach())
            order = torch.empty(real.shape, device="meta")
            packed = Packed(_bits(mask, order), tuple(order.shape), order.stride())
            self._packed[param] = packed
            self.version += 1
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
            del self._packed[param]
            self.version += 1

    def bits(self, param: Tensor, order: Tensor, device: torch.device) -> Tensor | None:
        """The bits for kernels that read the parameter in this order; None without a mask."""
        packed = self._packed.get(param)
        if packed is None:
            return None
        if (packed.shape, packed.strides) != (tuple(order.shape), order.stride()):
            flat = unpack(packed.bits, order.numel())
            bits = pack(_in_order(_as_tensor(flat, packed.order), order))
            packed = Packed(bits, tuple(order.shape), order.stride(), packed.shown)
        if packed.bits.device != device:
            packed = Packed(packed.bits.to(device), packed.shape, packed.strides, packed.shown)
        self._packed[param] = packed
        return packed.bits


def masked_out(param: Tensor, mask: Tensor) -> Tensor:
    """The elements that a mask does not keep; a local tensor."""
    return ~local(mask).to(local(param).device)


def as_mask(stored: Any) -> Tensor:
    """A mask that torch may have cast to the parameter's dtype."""
    mask: Tensor = stored if stored.dtype == torch.bool else stored != 0
    return mask


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
