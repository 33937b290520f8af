"""The AdamW of each side where changes are timed, and torch's in float64, which they must equal."""

from typing import Any

import torch
from data import NORMS, Settings
from pipelines import common
from torch.nn import Parameter
from torch.optim import Optimizer
from verify import BOUNDS, WrongResult

import lrfused

OURS, TORCH, REFERENCE = "lrfused", "fused", "reference"
SETTINGS = Settings()
MOMENTS = ("exp_avg", "exp_avg_sq")


def parameters(side: str, tensors: int, size: int) -> list[Parameter]:
    """The same values on every side, each with a gradient that stays."""
    dtype = torch.float64 if side == REFERENCE else torch.float32
    generator = torch.Generator().manual_seed(0)
    values, gradients = torch.randn(2, tensors, size, generator=generator).to(dtype)
    params = [Parameter(value.clone()) for value in values]
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient.clone()
    return params


def adamw(side: str, groups: list[Any], lr: Any) -> Optimizer:
    """With the hyperparameters of all benchmarks."""
    if side == OURS:
        return lrfused.AdamW(groups, lr=lr, **common(SETTINGS))
    return torch.optim.AdamW(groups, lr=lr, fused=True, **common(SETTINGS))


def deviation(found: Optimizer, expected: Optimizer, steps: int) -> float:
    """The largest difference of parameters and moments after so many steps, relative to their size.

    verify.py's bound is for as many steps as there are NORMS. The gradients here never change, so
    that every step may be rounded the same way, and the bound grows with them.

    Raises:
        WrongResult: it is above the bound, or not a number.
    """
    pairs = list(zip(_params(found), _params(expected), strict=True))
    updates = 2 * steps * SETTINGS.lr  # an update is as large as lr, which changes may double
    sizes = {"p": _deviation([p for p, _ in pairs], [q for _, q in pairs], updates)}
    stepped = [(p, q) for p, q in pairs if q in expected.state]
    for name in MOMENTS:
        ours = [found.state[p][name] for p, _ in stepped]
        sizes[name] = _deviation(ours, [expected.state[q][name] for _, q in stepped], 0.0)
    bound = BOUNDS["float32"] * max(1.0, steps / len(NORMS))
    for name, size in sizes.items():
        if not size <= bound:
            raise WrongResult(f"{name} is off by {size:.2e} of its size, the bound is {bound:.2e}")
    return max(sizes.values())


def _params(optimizer: Optimizer) -> list[Parameter]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _deviation(found: list[Any], expected: list[Any], added: float) -> float:
    p, q = (torch.cat([t.detach().view(-1).double() for t in ts]) for ts in (found, expected))
    return float(((p - q).abs() / (q.abs() + added)).amax())
