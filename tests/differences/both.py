"""What the tests of the differences share: the same small thing done with either optimizer."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

import lrfused

TORCH, OURS = torch.optim.AdamW, lrfused.AdamW


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Parameter:
    """A parameter of ones, of three elements if nothing else is said."""
    return Parameter(torch.ones(*(shape or (3,)), dtype=dtype))


def step(opt: torch.optim.Optimizer, gradient: float = 1.0) -> None:
    """A step over gradients of one value."""
    for group in opt.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, gradient, requires_grad=False)
    opt.step()


def stepped(kind: type, params: list[Any] | None = None, **options: Any) -> torch.optim.Optimizer:
    """An optimizer over a parameter of ones (or others) after a step."""
    opt = kind([ones()] if params is None else params, **options)
    step(opt)
    return opt


def parameter(opt: torch.optim.Optimizer, index: int = 0) -> Tensor:
    """A parameter of the first group."""
    return opt.param_groups[0]["params"][index]


def state(opt: torch.optim.Optimizer, index: int = 0) -> dict[str, Tensor]:
    """Its state."""
    return opt.state[parameter(opt, index)]
