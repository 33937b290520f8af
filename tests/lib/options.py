"""Options of the step: each alone with what it needs to act, and at random; bad gradients."""

import pytest
import torch

import lrfused
from lib.rules_for_steps import RULES, StepRule, of_the_test, one_of
from lrfused import schedules as S

INF = float("inf")
DYNAMIC = lrfused.LossScale(init=512.0, growth_interval=7, backoff_factor=0.3, hysteresis=2)
LR = S.warmup_cosine(1e-2, warmup_steps=20, total_steps=150, end=1e-4)


def two_of_three(p):
    """A mask for a parameter; a whole one keeps only what has several elements."""
    kept = torch.arange(p.numel(), device=p.device) % 3 != 1
    return kept.view(p.shape) if p.numel() > 2 else torch.zeros_like(p, dtype=torch.bool)


# Every option that all optimizers have, and with it what it needs to act; {} where the default is
# tested.
COMMON = {
    "default": {},
    "maximize": {"maximize": True},
    "max_grad_norm": {"max_grad_norm": 1.0},
    "inf norm": {"max_grad_norm": 0.5, "norm_type": INF},
    "clip_value": {"clip_value": 0.5},
    "agc by unit": {"agc": 0.05},
    "agc by tensor": {"agc": 0.05, "agc_by": "tensor"},
    "skip": {"nonfinite": "skip"},
    "accumulation": {"accumulation_steps": 3},
    "static scale": {"loss_scale": 384.0},
    "dynamic scale": {"loss_scale": DYNAMIC},
    "advance": {"nonfinite": "skip", "advance_schedule_on_skip": True, "lr": LR},
    "independent decay": {"weight_decay_mode": "independent"},
    "decay by lr ratio": {"weight_decay_mode": "lr_ratio", "lr": LR, "peak_lr": 1e-2},
    "start_step": {"start_step": 10},
    "write_grads": {"write_grads": True, "max_grad_norm": 1.0},
    "always_measure": {"always_measure": True},
    "averages": {"ema_decay": 0.8, "ema_update_every": 2, "start_step": 4},
    "masks": {"masks": two_of_three, "max_grad_norm": 1.0, "ema_decay": 0.5},
    "zero_grads": {"zero_grads": True, "nonfinite": "skip"},
    "tensors": {"lr": torch.tensor(3e-3), "weight_decay": torch.tensor(0.1, dtype=torch.float64)},
}


def single_options(rule: StepRule) -> dict[str, dict]:
    """Every option of an optimizer by name."""
    bad = {**rule.largest, "maximize": True}
    clips = {"clip_value": 0.5, "max_grad_norm": 1.0, "agc": 0.1}
    scheduled = {
        "lr": LR,
        "clip_value": S.linear(0.5, 0.1, 100),
        "agc": S.linear(0.02, 0.2, 100),
        "max_grad_norm": S.cosine(2.0, 0.2, 100),
    }
    mixed = {
        "not finite": bad,
        "not finite, clipped": {**rule.largest, **clips},
        "scheduled": {**rule.scheduled, **scheduled},
    }
    return {**COMMON, **rule.single, **mixed}


OF_RULES = [
    pytest.param(name, option, id=f"{name}-{option}")
    for name, rule in RULES.items()
    for option in single_options(rule)
]
# For a test with the fixture rule and the argument name.
over_every_option = pytest.mark.parametrize(("rule", "name"), OF_RULES, indirect=["rule"])

POISONED = {
    "skip",
    "zero_grads",
    "advance",
    "static scale",
    "dynamic scale",
    "not finite",
    "not finite, clipped",
}


def poison(rng, problem, probability):
    """Now and then an element that is not finite."""

    def change(g):
        if g.numel() and rng.numpy.random() < probability:
            place = int(rng.numpy.integers(g.numel()))
            g = g.clone()
            g.view(-1)[place] = rng.numpy.choice([INF, -INF, float("nan")])
        return g

    return problem.map_gradients(change)


def random_options(rng) -> dict:
    """Options of an optimizer of the test's rule with two groups, the second with its own."""
    one, of_rule = one_of(rng), of_the_test().random
    of_group = {
        **of_rule(one),
        "agc": one(None, 0.03, S.linear(0.01, 0.5, 20)),
        "agc_by": one("unit", "tensor"),
        "clip_value": one(None, 0.5, S.linear(1.0, 0.1, 15), INF),
        "start_step": one(0, 4),
        "maximize": one(True, False),
        "ema_decay": one(None, 0.0, 0.9, S.linear(0.0, 1.0, 9)),
        "ema_update_every": one(1, 3),
    }
    writes, zeroes = one((True, False), (False, True), (False, False))
    return {
        **of_rule(one),
        "groups": ({}, of_group),
        "lr": one(1e-3, LR, torch.tensor(2e-3)),
        "peak_lr": 0.02,
        "maximize": one(True, False),
        "max_grad_norm": one(None, 1.0, 0.1, S.linear(1, 0.1, 20)),
        "norm_type": one(2.0, INF),
        "clip_value": one(None, 0.7),
        "agc": one(None, 0.1),
        "agc_by": one("unit", "tensor"),
        "nonfinite": one("propagate", "skip"),
        "accumulation_steps": one(1, 3, 4),
        "loss_scale": one(None, 1024.0, "dynamic", DYNAMIC),
        "advance_schedule_on_skip": one(True, False),
        "write_grads": writes,
        "zero_grads": zeroes,
        "ema_decay": one(None, None, 0.5, torch.tensor(0.99)),
        "masks": one(None, None, two_of_three),
        "always_measure": one(True, False),
    }
