"""Optimizers with averages and masks, and what of them is compared."""

import torch
from lib.contract import make_parameters, parameters_of, twin

from .scenarios import warmup

AVERAGE, MASK = "lrfused_average", "lrfused_mask"
DTYPES = (torch.float32, torch.bfloat16)
EMA = {"ema_decay": 0.9}


def built(rng, kind, params=None, **options):
    """Parameters of both dtypes; or of given values."""
    params = params or [p for dtype in DTYPES for p in make_parameters(rng, dtype)]
    return kind.ours(params, lr=warmup(0.02), **kind.carrying, **options)


def masked(rng, opt):
    """Random masks for every other parameter, float32 and bfloat16."""
    chosen = parameters_of(opt)[::2]
    opt.set_masks({p: torch.rand(p.shape, generator=rng.torch) < 0.6 for p in chosen})
    return opt


def another(opt, kind, **options):
    """A fresh optimizer over the same values."""
    return built(None, kind, twin(parameters_of(opt)), **options)


def averages_of(opt):
    return {
        i: opt.state[p][AVERAGE]
        for i, p in enumerate(parameters_of(opt))
        if AVERAGE in opt.state.get(p, {})
    }


def assert_same_masks(a, b):
    pairs = zip(parameters_of(a), parameters_of(b), strict=True)
    mine, theirs = a.masks, b.masks
    for p, q in pairs:
        assert (p in mine) == (q in theirs)
        assert p not in mine or torch.equal(mine[p], theirs[q])


def written(opt, saved):
    """As ZeroRedundancyOptimizer loads: into groups and state."""
    for index, param in enumerate(parameters_of(opt)):
        opt.state[param] = saved["state"].get(index, {})
    for group, other in zip(opt.param_groups, saved["param_groups"], strict=True):
        group.update({k: v for k, v in other.items() if k != "params"})
