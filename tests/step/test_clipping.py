"""Clips against torch.nn.utils and timm's formula, then torch's optimizers; float64, 1e-12."""

import pytest
import torch
from lib.runs import (
    advance,
    assert_same_contents,
    assert_within,
    contents,
    numpy_of,
    parameters,
    random_problem,
    run,
    set_gradients,
    shorter,
    start,
)
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

SHAPES = [(5, 13), (), (0,), (3, 4, 2, 2), (700,), (2, 600), (1, 7)]
STEPS = 40
BOUND = 1e-12
INF = float("inf")
SETTINGS = {
    "adamw": {"lr": 3e-3, "betas": (0.8, 0.97), "weight_decay": 0.1},
    "sgd": {"lr": 3e-3, "momentum": 0.8, "dampening": 0.1, "weight_decay": 0.1},
}


def timm_adaptive_clip(params, threshold, by_unit):
    """min(1, threshold * max(|w|, 1e-3) / |g|) of each output unit, or of the whole tensor."""
    for p in params:
        if p.grad is None or p.numel() == 0:
            continue
        dims = tuple(range(1, p.dim())) if by_unit and p.dim() > 1 else tuple(range(p.dim()))
        size = p.detach().square().sum(dims, keepdim=True).sqrt().clamp_min(1e-3)
        norm = p.grad.square().sum(dims, keepdim=True).sqrt()
        factor = (threshold * size / norm.clamp_min(1e-300)).clamp_max(1.0)
        p.grad = p.grad * factor


CLIPS = {
    "2-norm": ({"max_grad_norm": 2.0}, lambda ps: clip_grad_norm_(ps, 2.0, foreach=False)),
    "inf norm": (
        {"max_grad_norm": 0.3, "norm_type": INF},
        lambda ps: clip_grad_norm_(  # torch has no inf norm of an empty tensor
            [p for p in ps if p.numel()], 0.3, norm_type=INF, foreach=False
        ),
    ),
    "value": ({"clip_value": 0.2}, lambda ps: clip_grad_value_(ps, 0.2, foreach=False)),
    "agc": ({"agc": 0.05}, lambda ps: timm_adaptive_clip(ps, 0.05, True)),
    "agc by tensor": (
        {"agc": 0.05, "agc_by": "tensor"},
        lambda ps: timm_adaptive_clip(ps, 0.05, False),
    ),
}


@pytest.mark.parametrize("rule", SETTINGS, indirect=True)
@pytest.mark.parametrize("name", CLIPS)
def test_against_torch(rng, backend, rule, name):
    (options, clip), settings = CLIPS[name], SETTINGS[rule.name]
    problem = random_problem(
        rng, SHAPES, shorter(backend, STEPS), (torch.float64,), exponents=(-3, 1)
    )
    for step, size in ((0, 1e3), (1, 1e-3)):  # beyond every threshold, and below that of a norm
        problem.gradients[step] = [None if g is None else g * size for g in problem.gradients[step]]
    got = start(problem.values, backend, **options, **settings)
    params = parameters(problem.values)
    torchs = rule.torchs(params, foreach=False, **settings)
    acted = []
    for gradients in problem.gradients:
        advance(got, gradients)
        set_gradients(params, gradients)
        clip(params)
        torchs.step()
        acted.append(
            any(
                g is not None and not torch.equal(p.grad, g)
                for p, g in zip(params, gradients, strict=True)
            )
        )
        for i, (mine, p) in enumerate(zip(got.params, params, strict=True)):
            assert_within(numpy_of(mine), numpy_of(p), BOUND, numpy_of(p.abs() + 1), f"p[{i}]")
    assert any(acted)
    if "norm" in name:
        assert not all(acted)
        assert [m["clip_coefficient"] < 1 for m in got.metrics] == acted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_clip_is_the_plain_step_of_clamped_gradients(rng, backend, rule, dtype):
    problem = random_problem(rng, SHAPES, 10, (dtype,), exponents=(-1, 1))
    clamped = problem.map_gradients(lambda g: g.clamp(-0.25, 0.25))
    got = without_gradients(run(problem, backend, clip_value=0.25))
    assert_same_contents(got, without_gradients(run(clamped, backend)))


@pytest.mark.parametrize("option", ["max_grad_norm", "clip_value", "agc"])
def test_an_infinite_threshold_does_not_clip(rng, backend, rule, option):
    problem = random_problem(rng, SHAPES, 5)
    assert_same_contents(
        contents(run(problem, backend, **{option: INF})), contents(run(problem, backend))
    )


@pytest.mark.parametrize("option", ["max_grad_norm", "clip_value", "agc"])
def test_a_zero_threshold_leaves_only_the_decay(rng, backend, rule, option):
    problem = random_problem(rng, SHAPES, 5, none=0.0)
    stopped = problem.map_gradients(torch.zeros_like)
    got = without_gradients(run(problem, backend, **{option: 0.0}))
    for name, want in without_gradients(run(stopped, backend)).items():
        assert torch.equal(got[name], want), name  # -0.0 equals 0.0


def test_a_zero_gradient_is_not_divided_by(rng, backend, rule):
    problem = random_problem(rng, SHAPES, 2, none=0.0).map_gradients(torch.zeros_like)
    got = run(problem, backend, max_grad_norm=0.0, agc=0.1, clip_value=0.1)
    for p in got.params:
        assert torch.isfinite(p).all()
    assert got.metrics[-1]["grad_norm"] == 0.0


def test_one_threshold_over_all_groups(rng, backend, rule):
    """How parameters are dealt out to groups does not matter."""
    problem = random_problem(rng, SHAPES, 8, (torch.float64,), exponents=(0, 1))
    one = run(problem, backend, max_grad_norm=0.5)
    two = run(problem, backend, groups=({}, {}, {}), max_grad_norm=0.5)
    for a, b in zip(one.params, two.params, strict=True):
        assert_within(numpy_of(a), numpy_of(b), BOUND)
    for a, b in zip(one.metrics, two.metrics, strict=True):
        assert_within(a["grad_norm"], b["grad_norm"], BOUND)


def without_gradients(run):
    """The contents, but not what the test itself put there."""
    return {k: v for k, v in contents(run).items() if not k.startswith("grad")}
