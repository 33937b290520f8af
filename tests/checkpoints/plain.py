"""Checkpoints of one process, as dictionaries that a test may change before they are loaded."""

import copy
from typing import Any

import torch
from lib.optimizers import ADAMW, Kind
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import lrfused

from .scenarios import warmup


def trained(rng: Any, steps: int, late: int = 0, kind: Kind = ADAMW, **options: Any) -> Any:
    """A model and its optimizer after some steps; the bias has no gradient before step ``late``."""
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=rng.torch))
    opt = kind.ours(model.parameters(), **{"lr": warmup(0.02), **options})
    for t in range(steps):
        step(rng, opt, late=t < late)
    return model, opt


def step(rng: Any, *optimizers: torch.optim.Optimizer, late: bool = False) -> None:
    """One step of each with the same random gradients; ``late``: none for the last parameter.

    A loss scale divides them.
    """
    lists = [[p for group in opt.param_groups for p in group["params"]] for opt in optimizers]
    together = list(zip(*lists, strict=True))
    for index, params in enumerate(together):
        gradient = torch.randn(params[0].shape, generator=rng.torch)
        for param in params:
            param.grad = None if late and index == len(together) - 1 else gradient.clone()
    for opt in optimizers:
        if isinstance(opt, lrfused.FusedOptimizer):
            opt.scale(torch.ones(()))
        opt.step()


def saved(model: torch.nn.Module, opt: torch.optim.Optimizer) -> dict[str, Any]:
    """A copy of what torch.distributed.checkpoint would write."""
    return copy.deepcopy(get_optimizer_state_dict(model, opt))


def resumed(model: torch.nn.Module, state: dict[str, Any], **options: Any) -> Any:
    """A copy of the model and a fresh optimizer that loaded the state."""
    other = copy.deepcopy(model)
    opt = lrfused.AdamW(other.parameters(), **{"lr": warmup(0.02), **options})
    set_optimizer_state_dict(other, opt, copy.deepcopy(state))
    return other, opt


def everything_of(opt: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Copies of parameters and state, in order."""
    params = [p for group in opt.param_groups for p in group["params"]]
    found = [p.detach().clone() for p in params]
    for param in params:
        found += [value.detach().clone() for _, value in sorted(opt.state[param].items())]
    return found


def assert_same(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> None:
    """Parameters and state in every bit."""
    for x, y in zip(everything_of(a), everything_of(b), strict=True):
        assert x.dtype == y.dtype and torch.equal(x, y)
