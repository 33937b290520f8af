"""A small model in float16 autocast: torch's scaler, clip and optimizer against the fused step."""

import pytest
import torch
from lib.runs import (
    FEW,
    advance,
    assert_same_bits,
    assert_same_run,
    assert_within,
    numpy_of,
    random_problem,
    shorter,
    start,
)

import lrfused

STEPS, MAX_NORM = 200, 0.5
OVERFLOWS = {3, 4, 5, 60, 61, 120, 199}
SETTINGS = {
    "adamw": {"lr": 3e-4, "weight_decay": 0.05},
    "sgd": {"lr": 3e-3, "momentum": 0.9, "weight_decay": 0.05},
    "lion": {"lr": 1e-4, "weight_decay": 0.05},
}
WITH_TORCHS = pytest.mark.parametrize("rule", ["adamw", "sgd"], indirect=True)
POLICY = {"growth_interval": 20}


class Training:
    """One seed's model and batches; a training step is scaled loss, backward, optimizer."""

    def __init__(self, seed, steps):
        self.steps = range(steps)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = torch.nn.Sequential(
                torch.nn.Linear(12, 24), torch.nn.Tanh(), torch.nn.Linear(24, 3)
            )
            self.inputs, self.targets = torch.randn(STEPS, 16, 12), torch.randn(STEPS, 16, 3)

    def backward(self, step, scale):
        """At some steps the loss is so large that its float16 gradients are infinite."""
        self.model.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            out = self.model(self.inputs[step])
        loss = (out.float() - self.targets[step]).square().mean()
        scale(loss * (1e25 if step in OVERFLOWS else 1.0)).backward()


def with_torch(seed, steps, rule):
    """unscale_, clip_grad_norm_, optimizer, GradScaler: what the fused step stands for."""
    training, scaler, scales = Training(seed, steps), torch.amp.GradScaler("cpu", **POLICY), []
    params = list(training.model.parameters())
    opt = rule.torchs(params, foreach=False, **SETTINGS[rule.name])
    for step in training.steps:
        training.backward(step, scaler.scale)
        scaler.unscale_(opt)
        torch.nn.utils.clip_grad_norm_(params, MAX_NORM, foreach=False)
        scaler.step(opt)
        scaler.update()
        scales.append(scaler.get_scale())
    return params, scales


def with_own_scale(seed, steps, backend, rule):
    """The loss scale inside the step."""
    training, scales = Training(seed, steps), []
    params = list(training.model.parameters())
    options = {"max_grad_norm": MAX_NORM, "loss_scale": lrfused.LossScale(**POLICY)}
    opt = rule.optimizer(params, backend=backend, **options, **SETTINGS[rule.name])
    for step in training.steps:
        training.backward(step, opt.scale)
        opt.step()
        scales.append(opt.metrics()["loss_scale"])
    assert opt.metrics()["clipped_steps"] > 0
    return params, scales, opt


def inside_a_scaler(seed, steps, backend, rule, unscale_first):
    """GradScaler hands over its scale, or has unscaled already (then the caller clips)."""
    training, scaler, scales = Training(seed, steps), torch.amp.GradScaler("cpu", **POLICY), []
    params = list(training.model.parameters())
    max_grad_norm = None if unscale_first else MAX_NORM
    options = {"max_grad_norm": max_grad_norm, **SETTINGS[rule.name]}
    opt = rule.optimizer(params, backend=backend, **options)
    for step in training.steps:
        training.backward(step, scaler.scale)
        if unscale_first:
            scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(params, MAX_NORM, foreach=False)
        scaler.step(opt)
        scaler.update()
        scales.append(scaler.get_scale())
    return params, scales, opt


@pytest.fixture
def seed(rng):
    return int(rng.numpy.integers(2**31))


@pytest.fixture
def steps(backend):
    return shorter(backend, STEPS)


@pytest.fixture
def torchs(seed, steps, rule):
    return with_torch(seed, steps, rule)


def assert_near(params, torchs):
    for p, q in zip(params, torchs, strict=True):
        assert_within(numpy_of(p), numpy_of(q), 1e-5, torch.ones_like(q))


@WITH_TORCHS
def test_the_own_loss_scale(seed, steps, torchs, backend, rule):
    params, scales, opt = with_own_scale(seed, steps, backend, rule)
    assert scales == torchs[1]
    assert len(set(scales)) > 3
    assert_near(params, torchs[0])
    skips = opt.metrics()["skipped_steps"]
    assert skips >= len(OVERFLOWS.intersection(range(steps)))
    assert opt.metrics()["steps"] == steps - skips


@WITH_TORCHS
@pytest.mark.parametrize("unscale_first", [False, True])
def test_inside_a_grad_scaler(seed, steps, torchs, backend, rule, unscale_first):
    params, scales, opt = inside_a_scaler(seed, steps, backend, rule, unscale_first)
    assert scales == torchs[1]
    assert_near(params, torchs[0])
    assert opt.metrics()["skipped_steps"] >= len(OVERFLOWS.intersection(range(steps)))
    assert not hasattr(opt, "grad_scale")


def test_both_ways_of_scaling_agree_in_every_bit(seed, steps, backend, rule):
    own, _, _ = with_own_scale(seed, steps, backend, rule)
    inside, _, _ = inside_a_scaler(seed, steps, backend, rule, unscale_first=False)
    for p, q in zip(own, inside, strict=True):
        assert_same_bits(p, q)


@pytest.mark.parametrize("found_inf", [0, 1, 0.0, 2.0, torch.tensor(1.0), torch.tensor([0.0])])
@pytest.mark.parametrize("grad_scale", [None, 8.0, torch.tensor(8.0), torch.tensor([8.0])])
def test_the_attributes_of_a_grad_scaler(rng, backend, rule, grad_scale, found_inf):
    """found_inf decides alone; a scale of None is 1."""
    problem = random_problem(rng, [(5, 13), ()], 1)
    scale = 1.0 if grad_scale is None else float(grad_scale)
    made, want = (start(problem.values, backend) for _ in range(2))
    made.opt.grad_scale, made.opt.found_inf = grad_scale, found_inf
    advance(made, [g * scale for g in problem.gradients[0]])
    if not float(found_inf):
        advance(want, problem.gradients[0])
    for p, q in zip(made.params, want.params, strict=True):
        assert_same_bits(p, q)
    assert made.metrics[0]["skipped_steps"] == int(float(found_inf) != 0)


OUTSIDE = [
    {"grad_scale": 128.0, "found_inf": 0.0},
    {"grad_scale": torch.tensor(3.0), "found_inf": torch.tensor(0.0)},
    {"grad_scale": torch.tensor([5.0]), "found_inf": torch.tensor([1.0])},
    {"grad_scale": 7.0, "found_inf": 1},
]


@pytest.mark.parametrize("outside", OUTSIDE, ids=repr)
@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.5}, {"nonfinite": "raise"}], ids=repr)
def test_an_outside_grad_scaler(rng, kernels, rule, outside, options):
    """Its attributes do what they do to the reference, whatever else there is to decide."""
    problem = random_problem(rng, FEW, 2)
    got, want = (start(problem.values, b, **options) for b in (kernels, "reference"))
    for gradients in problem.gradients:
        for made in (got, want):
            vars(made.opt).update(outside)
            advance(made, gradients)
    assert_same_run(got, want)


def test_an_outside_scale_multiplies_the_own_one(rng, backend, rule):
    problem = random_problem(rng, [(5, 13), ()], 1)
    made, want = start(problem.values, backend, loss_scale=4.0), start(problem.values, backend)
    made.opt.grad_scale = 16.0
    advance(made, [g * 64 for g in problem.gradients[0]])
    advance(want, problem.gradients[0])
    for p, q in zip(made.params, want.params, strict=True):
        assert_same_bits(p, q)
