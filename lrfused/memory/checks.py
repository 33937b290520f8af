"""Checks of parameters, gradients and state tensors."""

from typing import Any

import torch
from torch import Tensor

from lrfused.memory.dtensor import is_distributed, local, placing
from lrfused.memory.formats import DTYPES
from lrfused.memory.operands import overlaps_itself

REAL = {
    torch.complex128: torch.float64,
    torch.complex64: torch.float32,
    torch.complex32: torch.float16,
}


PLAIN = (Tensor, torch.nn.Parameter)


def is_freed(tensor: Tensor) -> bool:
    """True if it has elements but no memory: storage freed, so its address equals its offset."""
    offset = tensor.storage_offset() * tensor.element_size()
    return tensor.numel() > 0 and tensor.data_ptr() == offset


def check_pair(param: Tensor, gradient: Tensor, writes: bool) -> None:
    """Refuse a parameter and gradient that no kernel can read.

    Raises:
        TypeError: a subclass of Tensor, or a dtype that is not supported.
        RuntimeError: a sparse gradient.
        ValueError: no memory behind it, or the two on different devices.
    """
    name = f"a parameter of shape {tuple(param.shape)}"
    if is_distributed(param) and is_distributed(gradient):
        _check_distributed(name, param, gradient)
        param, gradient = local(param), local(gradient)
    elif type(param) not in PLAIN or type(gradient) is not Tensor:
        raise TypeError(
            f"params: {name} or its gradient is of type {type(param).__name__} / "
            f"{type(gradient).__name__}; only Tensor, Parameter and DTensor are supported"
        )
    if gradient.is_sparse or gradient.layout != torch.strided:
        raise RuntimeError(
            f"gradient of {name} is sparse ({gradient.layout}); only dense ones work"
        )
    _check_values(param, f"params: {name}")
    _check_values(gradient, f"gradient of {name}")
    if param.is_complex() != gradient.is_complex():
        raise TypeError(f"gradient of {name} is {gradient.dtype}, the parameter {param.dtype}")
    if param.device != gradient.device:
        raise ValueError(f"gradient of {name} is on {gradient.device}, not on {param.device}")
    if param.shape != gradient.shape:
        raise ValueError(f"gradient of {name} has another shape, {tuple(gradient.shape)}")
    if writes and overlaps_itself(gradient):
        raise ValueError(
            f"gradient of {name} cannot be written (write_grads=True or zero_grads=True): its "
            f"elements share memory, strides {gradient.stride()}"
        )


def check_param(param: Tensor) -> None:
    """Refuse a parameter that has a part in steps without a gradient, if no kernel can read it.

    Raises:
        TypeError: a subclass of Tensor, or a dtype that is not supported.
        ValueError: no memory behind it.
    """
    name = f"params: a parameter of shape {tuple(param.shape)}"
    if not is_distributed(param) and type(param) not in PLAIN:
        raise TypeError(
            f"{name} is of type {type(param).__name__}; only Tensor, Parameter and DTensor are "
            f"supported{AVERAGED}"
        )
    _check_values(local(param), name, AVERAGED)


AVERAGED = " (it is averaged: a group with ema_decay=None is left alone)"


def _check_values(tensor: Tensor, what: str, more: str = "") -> None:
    if tensor.is_meta:
        raise ValueError(f"{what} is on the meta device: it has no values")
    if REAL.get(tensor.dtype, tensor.dtype) not in DTYPES:
        raise TypeError(f"{what} has dtype {tensor.dtype}; supported are {DTYPES}{more}")
    if is_freed(tensor):
        raise ValueError(f"{what} has no memory (its storage was freed)")


def _check_distributed(name: str, param: Any, gradient: Any) -> None:
    ours, theirs = placing(param), placing(gradient)
    if ours != theirs:
        raise ValueError(
            f"gradient of {name} is a DTensor with placements {theirs[1]}, the parameter's are "
            f"{ours[1]}; redistribute it first"
        )


def check_moment(key: str, moment: Any, param: Tensor, device: torch.device) -> None:
    """Refuse a state tensor that does not belong to its parameter.

    Raises:
        TypeError: not a dense tensor of real (or complex) numbers, like the parameter.
        ValueError: another shape, another device, or no memory behind it.
    """
    what = f"{key} of a parameter of shape {tuple(param.shape)}"
    if not isinstance(moment, Tensor):
        raise TypeError(f"{what} must be a tensor, got {type(moment).__name__}")
    if type(moment) not in PLAIN and not is_distributed(moment):
        raise TypeError(f"{what} is of type {type(moment).__name__}; only Tensor is supported")
    if moment.layout != torch.strided or moment.is_complex() != param.is_complex():
        raise TypeError(f"{what} is {moment.dtype} ({moment.layout}), the parameter {param.dtype}")
    if REAL.get(moment.dtype, moment.dtype) not in DTYPES:
        raise TypeError(f"{what} has dtype {moment.dtype}; supported are {DTYPES}")
    if is_distributed(moment) != is_distributed(param):
        raise TypeError(
            f"{what} is a {type(moment).__name__}, the parameter {type(param).__name__}"
        )
    if moment.shape != param.shape:
        raise ValueError(f"{what} has another shape, {tuple(moment.shape)}")
    if is_distributed(param) and placing(moment) != placing(param):
        raise ValueError(
            f"{what} has placements {placing(moment)[1]}, the parameter's are {placing(param)[1]}; "
            "redistribute it first"
        )
    moment = local(moment)
    if not moment.is_contiguous() and overlaps_itself(moment):
        raise ValueError(f"{what} has elements that share memory, strides {moment.stride()}")
    if moment.device != device:
        raise ValueError(f"{what} must be on {device}, got {moment.device}")
    if is_freed(moment):
        raise ValueError(f"{what} has no memory (its storage was freed)")
