"""The complete step against an independent one in NumPy float64: order, clips, decay, moments."""

import numpy as np
import pytest
import torch
from lib.plain_adamw import PlainAdamW
from lib.runs import advance, assert_within, numpy_of, random_problem, shorter, start

from lrfused import schedules as S

SHAPES = [(), (5, 13), (0,), (3, 2, 2, 2), (600,), (2, 700), (1,), (4, 1)]
BOUND = 1e-12
INF = float("inf")


def random_options(rng):
    """Options that both steps take."""

    def one(*choices):
        return choices[rng.numpy.integers(len(choices))]

    def group():
        return {
            "lr": one(1e-3, 0.02, S.warmup_cosine(0.01, 5, 30, 1e-4)),
            "betas": one((0.9, 0.999), (0.8, 0.95), (S.linear(0.95, 0.8, 20), 0.98)),
            "eps": one(1e-8, 1e-3, S.exponential(1e-3, 1e-6, 20)),
            "weight_decay": one(0.0, 0.3, S.linear(0.3, 0.0, 30)),
            "clip_value": one(None, 0.3, S.linear(1.0, 0.1, 15)),
            "agc": one(None, 0.02, S.linear(0.01, 0.5, 20)),
            "agc_by": one("unit", "tensor"),
            "weight_decay_mode": one("lr", "independent", "lr_ratio"),
            "peak_lr": 0.02,
            "bias_correction": one("power", "product"),
            "start_step": one(0, 0, 6),
            "amsgrad": one(True, False),
            "maximize": one(True, False),
        }

    return {
        "groups": (group(), group(), group()),
        "max_grad_norm": one(None, 0.5, S.linear(1, 0.1, 20)),
        "norm_type": one(2.0, INF),
        "accumulation_steps": one(1, 3),
        "loss_scale": one(None, 384.0),
    }


def assert_follows(run, plain):
    """The same parameters, moments, metrics and written gradients."""
    for i, p in enumerate(run.params):
        assert_within(numpy_of(p), plain.p[i], BOUND, np.abs(plain.p[i]) + 1, f"p[{i}]")
        state = run.opt.state.get(p, {})
        if state:
            assert_within(numpy_of(state["exp_avg"]), plain.m[i], BOUND, plain.size_m[i], f"m[{i}]")
            assert_within(numpy_of(state["exp_avg_sq"]), plain.v[i], BOUND, name=f"v[{i}]")
        if i in plain.clipped:
            largest = np.max(np.abs(plain.clipped[i]), initial=0.0)
            assert_within(numpy_of(p.grad), plain.clipped[i], BOUND, largest, f"gradient {i}")
    metrics = run.metrics[-1]
    assert_within(metrics["grad_norm"], plain.grad_norm, BOUND)
    assert_within(metrics["clip_coefficient"], plain.coefficient, BOUND)
    assert metrics["steps"] == plain.steps


@pytest.mark.parametrize("trial", range(8))
def test_random_options(rng, backend, trial):
    options = random_options(rng)
    problem = random_problem(rng, SHAPES, shorter(backend, 30), (torch.float64,))
    run = start(problem.values, backend, write_grads=True, always_measure=True, **options)
    options["loss_scale"] = options["loss_scale"] or 1.0
    plain = PlainAdamW(problem.values, **options)
    for gradients in problem.gradients:
        scaled = [None if g is None else g * options["loss_scale"] for g in gradients]
        advance(run, scaled)
        plain.step(scaled)
        assert_follows(run, plain)


def test_a_count_that_a_caller_writes_counts(rng, backend):
    """state["step"] in place, as when somebody warm-starts the moments."""
    problem = random_problem(rng, SHAPES, 6, (torch.float64,), none=0.0)
    run = start(problem.values, backend, write_grads=True, always_measure=True)
    plain = PlainAdamW(problem.values)
    for step, gradients in enumerate(problem.gradients):
        if step == 3:
            run.opt.state[run.params[0]]["step"].fill_(100.0)
            plain.count[0] = 100
        advance(run, gradients)
        plain.step(gradients)
        assert_follows(run, plain)
    assert [float(run.opt.state[p]["step"]) for p in run.params[:2]] == [103.0, 6.0]


@pytest.fixture
def by_hand(backend):
    """Rows of norm 5 and 0.5 whose gradients, scaled by 8, have norms 50 and 1."""
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)
    gradient = 8 * torch.tensor([[30.0, 40.0], [0.6, -0.8]], dtype=torch.float64)

    def written(**options):
        run = start([weight], backend, write_grads=True, always_measure=True, **options)
        advance(run, [gradient])
        return run.params[0].grad, run.metrics[-1]

    return written


def test_the_order_is_unscale_value_adaptive_global(by_hand):
    got, metrics = by_hand(
        loss_scale=4.0, accumulation_steps=2, clip_value=20.0, agc=0.1, max_grad_norm=0.25
    )
    # Values clipped: [20, 20], [0.6, -0.8]; rows then have norms 20 sqrt 2 and 1 and the limits
    # 0.5 and 0.05; the norm of the result is sqrt(0.25 + 0.0025).
    rows = np.array([[0.5 / np.sqrt(2), 0.5 / np.sqrt(2)], [0.03, -0.04]])
    coefficient = 0.25 / (np.sqrt(0.2525) + 1e-6)
    assert_within(numpy_of(got), rows * coefficient, BOUND)
    assert_within(metrics["grad_norm"], np.sqrt(2501.0), BOUND)  # before any clip
    assert_within(metrics["clip_coefficient"], coefficient, BOUND)


def test_the_infinity_norm_sees_what_the_earlier_clips_left(by_hand):
    got, metrics = by_hand(
        loss_scale=8.0, clip_value=20.0, agc=0.1, max_grad_norm=0.25, norm_type=INF
    )
    coefficient = 0.25 / (0.5 / np.sqrt(2) + 1e-6)
    rows = np.array([[0.5 / np.sqrt(2), 0.5 / np.sqrt(2)], [0.03, -0.04]])
    assert_within(numpy_of(got), rows * coefficient, BOUND)
    assert_within(metrics["grad_norm"], 40.0, BOUND)


def test_a_tensor_is_one_unit_for_agc_by_tensor(by_hand):
    got, _ = by_hand(loss_scale=8.0, agc=0.1, agc_by="tensor")
    factor = 0.1 * np.sqrt(25.25) / np.sqrt(2501.0)
    assert_within(numpy_of(got), np.array([[30.0, 40.0], [0.6, -0.8]]) * factor, BOUND)
