"""What a step accepts as a parameter and its gradient."""

import torch
from torch import Tensor

from lrfused.table import DTYPES

REAL = {
    torch.complex128: torch.float64,
    torch.complex64: torch.float32,
    torch.complex32: torch.float16,
}


def check_pair(param: Tensor, gradient: Tensor) -> None:
    """Refuse what no kernel can read.

    Raises:
        TypeError: a subclass of Tensor, or a dtype that is not supported.
        RuntimeError: a sparse gradient.
        ValueError: no memory behind it, or the two on different devices.
    """
    name = f"a parameter of shape {tuple(param.shape)}"
    if type(param) not in (Tensor, torch.nn.Parameter) or type(gradient) is not Tensor:
        raise TypeError(
            f"params: {name} or its gradient is of type {type(param).__name__} / "
            f"{type(gradient).__name__}; only Tensor and Parameter are supported"
        )
    if gradient.is_sparse or gradient.layout != torch.strided:
        raise RuntimeError(
            f"gradient of {name} is sparse ({gradient.layout}); only dense ones work"
        )
    for tensor, what in ((param, "params: "), (gradient, "gradient of ")):
        if tensor.is_meta:
            raise ValueError(f"{what}{name} is on the meta device: it has no values")
        if REAL.get(tensor.dtype, tensor.dtype) not in DTYPES:
            raise TypeError(f"{what}{name} has dtype {tensor.dtype}; supported are {DTYPES}")
        if tensor.numel() and tensor.data_ptr() == 0:
            raise ValueError(f"{what}{name} has no memory (its storage was freed)")
    if param.is_complex() != gradient.is_complex():
        raise TypeError(f"gradient of {name} is {gradient.dtype}, the parameter {param.dtype}")
    if param.device != gradient.device:
        raise ValueError(f"gradient of {name} is on {gradient.device}, not on {param.device}")
