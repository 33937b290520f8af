"""LossScale: arguments, the policy as a small state machine, what scale() does."""

import math

import numpy as np
import pytest
import torch
from lib.runs import advance, assert_same_bits, random_problem, run, shorter, start

import lrfused
from lrfused import LossScale

INF, NAN = math.inf, math.nan


class Machine:
    """The documented policy, in float32."""

    def __init__(self, policy):
        self.policy, self.scale = policy, np.float32(policy.init)
        self.good = self.bad = 0

    def step(self, found_inf):
        policy, scale = self.policy, float(self.scale)
        if found_inf:
            self.good, self.bad = 0, self.bad + 1
            if self.bad >= policy.hysteresis:
                scale = max(scale * policy.backoff_factor, policy.minimum)
        else:
            self.good, self.bad = self.good + 1, 0
            if self.good == policy.growth_interval:
                self.good = 0
                scale = min(scale * policy.growth_factor, policy.maximum)
        self.scale = np.float32(scale)


def scales(backend, policy, found_infs, groups=({},)):
    """What metrics() and scale() say after each step."""
    made = start([torch.zeros(3)], backend, loss_scale=policy, groups=groups)
    seen = []
    for found_inf in found_infs:
        advance(made, [torch.tensor([1.0, INF if found_inf else 1.0, 1.0])])
        seen.append(made.metrics[-1]["loss_scale"])
        assert float(made.opt.scale(torch.tensor(1.0))) == seen[-1]
    return seen


@pytest.mark.parametrize("trial", range(12))
def test_the_policy_over_random_sequences(rng, backend, trial):
    """Also of factors that are no powers of two, and against the limits."""
    policy = LossScale(
        init=float(rng.numpy.choice([1.0, 300.0, 65536.0])),
        growth_factor=float(rng.numpy.choice([2.0, 1.7, 10.0])),
        backoff_factor=float(rng.numpy.choice([0.5, 0.3, 0.9])),
        growth_interval=int(rng.numpy.integers(1, 5)),
        hysteresis=int(rng.numpy.integers(1, 4)),
        minimum=float(rng.numpy.choice([2.0**-126, 0.7])),
        maximum=float(rng.numpy.choice([1e30, 70000.0])),
    )
    found_infs = rng.numpy.random(shorter(backend, 120)) < rng.numpy.uniform(0.05, 0.6)
    machine, want = Machine(policy), []
    for found_inf in found_infs:
        machine.step(found_inf)
        want.append(float(machine.scale))
    assert scales(backend, policy, found_infs) == want


def torchs_scales(found_infs, **options):
    """GradScaler's own, driven by an optimizer that does nothing."""
    scaler = torch.amp.GradScaler("cpu", **options)
    p = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.SGD([p], lr=0.0)
    seen = []
    for found_inf in found_infs:
        scaler.scale(torch.zeros(()))  # makes its tensors
        p.grad = torch.tensor([INF if found_inf else 1.0])
        scaler.step(opt)
        scaler.update()
        seen.append(scaler.get_scale())
    return seen


@pytest.mark.parametrize(
    "options",
    [
        {"growth_interval": 3},
        {"init_scale": 2.0**125, "growth_interval": 1},  # up to the largest float32
        {"init_scale": 1e30, "growth_factor": 1000.0, "growth_interval": 2},
        {"init_scale": 5.0, "growth_factor": 1.3, "backoff_factor": 0.9, "growth_interval": 2},
    ],
)
def test_the_policy_is_grad_scalers(rng, backend, options):
    found_infs = rng.numpy.random(shorter(backend, 150)) < 0.1
    mine = {("init" if k == "init_scale" else k): v for k, v in options.items()}
    want = torchs_scales(found_infs, **options)
    assert scales(backend, LossScale(**mine), found_infs) == want
    assert len(set(want)) > 1


def test_dynamic_has_grad_scalers_defaults():
    policy, scaler = LossScale.of("dynamic"), torch.amp.GradScaler("cpu")
    scaler.scale(torch.zeros(()))
    assert policy == LossScale()
    assert (policy.init, policy.growth_factor, policy.backoff_factor, policy.growth_interval) == (
        scaler.get_scale(),
        scaler.get_growth_factor(),
        scaler.get_backoff_factor(),
        scaler.get_growth_interval(),
    )
    assert (policy.hysteresis, policy.dynamic) == (1, True)


def test_a_static_scale_never_changes(backend):
    assert set(scales(backend, 384.0, [True, False] * shorter(backend, 30))) == {384.0}
    assert set(scales(backend, 1e-40, [True, False] * 3)) == {float(np.float32(1e-40))}


def test_the_scale_moves_although_a_group_waits(backend):
    policy = LossScale(init=8.0, growth_interval=1)
    assert scales(backend, policy, [False] * 3, groups=({"start_step": 100},)) == [16, 32, 64]


@pytest.mark.parametrize("scale", [2.0**-10, 1.0, 2.0**17])
def test_a_power_of_two_changes_no_bit(rng, backend, rule, scale):
    problem = random_problem(rng, [(5, 13), (65,), ()], 10)
    scaled = run(problem.map_gradients(lambda g: g * scale), backend, loss_scale=scale)
    plain = run(problem, backend)
    for p, q in zip(scaled.params, plain.params, strict=True):
        assert_same_bits(p, q)


def test_scale_multiplies_the_loss(backend):
    """And its gradient; without loss scaling it gives the loss itself."""
    made = start([torch.tensor([1.0, 2.0])], backend, loss_scale=1024.0)
    loss = made.params[0].square().sum()
    made.opt.scale(loss).backward()
    assert made.params[0].grad.tolist() == [2048.0, 4096.0]
    assert start([torch.zeros(1)], backend).opt.scale(loss) is loss


BAD = [
    ({"init": 0.0}, ValueError, "init"),
    ({"init": INF}, ValueError, "init"),
    ({"init": NAN}, ValueError, "init"),
    ({"init": "1"}, TypeError, "init"),
    ({"init": 1e39}, ValueError, "init"),
    ({"init": 1.0, "minimum": 2.0}, ValueError, r"init: must lie in \[minimum, maximum\]"),
    ({"init": 3.0, "maximum": 2.0}, ValueError, r"init: must lie in \[minimum, maximum\]"),
    ({"growth_factor": 1.0}, ValueError, "growth_factor: must be greater than 1, got 1.0"),
    ({"growth_factor": NAN}, ValueError, "growth_factor"),
    ({"backoff_factor": 1.0}, ValueError, "backoff_factor: must be less than 1, got 1.0"),
    ({"backoff_factor": 0.0}, ValueError, "backoff_factor"),
    ({"growth_interval": 0}, ValueError, "growth_interval"),
    ({"growth_interval": 1.5}, (TypeError, ValueError), "growth_interval"),
    ({"hysteresis": 0}, ValueError, "hysteresis"),
    ({"minimum": 0.0}, ValueError, "minimum"),
    ({"maximum": 1e39}, ValueError, "maximum: must be a float32 number, got 1e[+]39"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LossScale(**arguments)


@pytest.mark.parametrize(
    ("value", "error"),
    [("static", ValueError), (0.0, ValueError), (-1.0, ValueError), (INF, ValueError),
     (NAN, ValueError), (1e39, ValueError), ([1.0], TypeError)],
)  # fmt: skip
def test_bad_loss_scale(value, error):
    with pytest.raises(error, match="loss_scale"):
        lrfused.AdamW([torch.nn.Parameter(torch.zeros(1))], loss_scale=value)
