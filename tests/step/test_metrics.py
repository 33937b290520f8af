"""metrics(): every key, against what the test works out itself."""

import math

import pytest
import torch
from lib.runs import advance, assert_within, random_problem, run, start

from lrfused import LossScale
from lrfused import schedules as S

KEYS = {
    "lr",
    "grad_norm",
    "clip_coefficient",
    "clipped_steps",
    "skipped_steps",
    "consecutive_skips",
    "steps",
    "loss_scale",
    "headroom",
    "tiny_gradients",
}
INF, NAN = math.inf, math.nan
MEASURING = {
    "always_measure": {"always_measure": True},
    "max_grad_norm": {"max_grad_norm": 1.0},
    "agc": {"agc": 0.1},
    "skip": {"nonfinite": "skip"},
    "raise": {"nonfinite": "raise"},
    "loss scale": {"loss_scale": 1.0},
}


def test_before_the_first_step(backend):
    metrics = start([torch.zeros(3)], backend, lr=0.5, loss_scale=8.0).opt.metrics()
    assert metrics.keys() == KEYS
    assert metrics["grad_norm"] is metrics["headroom"] is metrics["tiny_gradients"] is None
    assert (metrics["clip_coefficient"], metrics["loss_scale"], metrics["steps"]) == (1.0, 8.0, 0)


@pytest.mark.parametrize("options", [{}, {"clip_value": 0.1}, {"accumulation_steps": 2}], ids=str)
def test_none_where_nothing_was_measured(rng, backend, options):
    metrics = run(random_problem(rng, [(5,), ()], 2, none=0.0), backend, **options).metrics[-1]
    assert metrics.keys() == KEYS
    assert metrics["grad_norm"] is metrics["headroom"] is metrics["loss_scale"] is None
    assert metrics["tiny_gradients"] is None
    assert (metrics["clip_coefficient"], metrics["steps"]) == (1.0, 2)


@pytest.mark.parametrize("name", MEASURING)
def test_norm_and_headroom_where_it_was(rng, backend, name):
    """Of the unscaled gradients before any clip, and of the scaled ones."""
    problem = random_problem(rng, [(5, 13), (), (0,), (700,)], 10, (torch.float64,))
    made = run(problem, backend, accumulation_steps=3, **MEASURING[name])
    for metrics, gradients in zip(made.metrics, problem.gradients, strict=True):
        flat = torch.cat([g.reshape(-1) for g in gradients if g is not None])
        assert_within(metrics["grad_norm"], float(flat.norm()) / 3, 1e-14)
        assert metrics["headroom"] == 65504.0 / float(flat.abs().max())


def test_headroom_of_scaled_gradients_as_they_come_from_backward(backend):
    made = start([torch.zeros(3, dtype=torch.float16)], backend, loss_scale=128.0)
    advance(made, [torch.tensor([1.0, -32752.0, 3.0], dtype=torch.float16)])
    assert made.metrics[-1]["headroom"] == 2.0
    assert_within(made.metrics[-1]["grad_norm"], math.sqrt(10 + 32752.0**2) / 128, 1e-7)


def test_headroom_and_norm_of_zero_infinite_and_nan_gradients(backend):
    made = start([torch.zeros(3)], backend, nonfinite="skip")
    for value, norm, headroom in ((0.0, 0.0, INF), (INF, INF, 0.0), (NAN, NAN, NAN)):
        advance(made, [torch.full((3,), value)])
        metrics = made.metrics[-1]
        assert repr((metrics["grad_norm"], metrics["headroom"])) == repr((norm, headroom))


@pytest.mark.parametrize("norm_type", [2.0, INF])
def test_clip_coefficient_and_clipped_steps(rng, backend, norm_type):
    problem = random_problem(rng, [(5, 13), (65,)], 30, (torch.float64,), exponents=(-3, 1))
    made = run(problem, backend, max_grad_norm=0.4, norm_type=norm_type)
    clipped = 0
    for metrics, gradients in zip(made.metrics, problem.gradients, strict=True):
        flat = torch.cat([g.reshape(-1) for g in gradients if g is not None] + [torch.zeros(1)])
        coefficient = min(1.0, 0.4 / (float(flat.norm(norm_type)) + 1e-6))
        assert_within(metrics["clip_coefficient"], coefficient, 1e-14)
        clipped += coefficient < 1
        assert metrics["clipped_steps"] == clipped
    assert 0 < clipped < 30


def test_counters_over_skips(rng, backend):
    """A skipped step is none of the completed ones, and not a clipped one."""
    made = start([torch.zeros(3)], backend, nonfinite="skip", max_grad_norm=1.0)
    skipped = consecutive = steps = clipped = 0
    for bad in rng.numpy.random(40) < 0.4:
        size = float(rng.numpy.choice([0.1, 10.0]))
        advance(made, [torch.tensor([size, NAN if bad else 0.0, INF if bad else 0.0])])
        skipped += bad
        consecutive = consecutive + 1 if bad else 0
        steps += not bad
        clipped += not bad and size > 1
        metrics = made.metrics[-1]
        assert [metrics[k] for k in ("skipped_steps", "consecutive_skips", "steps")] == [
            skipped,
            consecutive,
            steps,
        ]
        assert metrics["clipped_steps"] == clipped


def test_lr_of_every_group_is_the_one_that_was_used(rng, backend, rule):
    first, second = S.linear(0.1, 0.0, 7), torch.tensor(0.25)
    groups = ({"lr": first}, {"lr": second}, {"lr": 0.125}, {"start_step": 3})
    problem = random_problem(rng, [(3,)] * 4, 5, none=0.0)
    made = run(problem, backend, groups=groups, lr=0.5)
    assert [m["lr"] for m in made.metrics] == [[first(t), 0.25, 0.125, 0.5] for t in range(5)]


def test_loss_scale_is_the_present_one(backend):
    made = start([torch.zeros(3)], backend, loss_scale=LossScale(init=8.0, growth_interval=1))
    advance(made, [torch.ones(3)])
    assert made.metrics[-1]["loss_scale"] == float(made.opt.scale(torch.tensor(1.0))) == 16.0


def test_reading_metrics_changes_nothing(rng, backend):
    problem = random_problem(rng, [(5, 13)], 3, none=0.0)
    made = start(problem.values, backend, max_grad_norm=1.0, lr=S.linear(0.1, 0, 5))
    for gradients in problem.gradients:
        advance(made, gradients)
        assert made.opt.metrics() == made.opt.metrics() == made.metrics[-1]


def test_measuring_changes_no_bit_of_the_step(rng, backend, rule):
    problem = random_problem(rng, [(5, 13), (65,)], 10)
    measured, plain = (run(problem, backend, always_measure=x) for x in (True, False))
    for p, q in zip(measured.params, plain.params, strict=True):
        assert torch.equal(p, q)
