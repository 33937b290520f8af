"""Parameters on several GPUs in one optimizer: the bits of the reference, and nothing waits."""

import pytest
import torch
from lib.options import LR, poison, random_options
from lib.runs import DTYPES, SMALL, advance, random_problem, start

import lrfused
from lrfused import schedules as S

from .helpers import (
    assert_same_end,
    assert_same_everywhere,
    captured,
    nothing_waits,
    on,
    reference_of,
    step_with,
)

pytestmark = pytest.mark.gpu

CLIPPED = {"max_grad_norm": 0.5, "clip_value": S.linear(0.5, 0.1, 20), "agc": 0.1}
OPTIONS = {
    "step": {},
    "clip": {"lr": LR, "max_grad_norm": 1.0},
    "everything": {"lr": LR, "loss_scale": "dynamic", "write_grads": True, **CLIPPED},
    "two groups": {"groups": ({}, {"weight_decay": 0.5, "start_step": 2}), "max_grad_norm": 0.1},
}


@pytest.fixture
def devices(target):
    """All of this machine, of which there are several."""
    if target.dry or torch.cuda.device_count() < 2:
        pytest.skip("one device")
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def apart(devices, tensors):
    """Copies of tensors, dealt out to devices in turn."""
    return [on(devices[i % len(devices)], x) for i, x in enumerate(tensors)]


def start_apart(devices, target, values, **options):
    """An optimizer over parameters on these devices before its first step."""
    return start(apart(devices, values), target.backend, **on(devices[0], options))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_on_several_devices(rng, target, rule, devices, name):
    problem = poison(rng, random_problem(rng, [*SMALL, (70_001,), (3, 65537)], 10), 0.02)
    options = {**OPTIONS[name], **rule.largest}
    for order in (devices, devices[::-1]):
        made = start_apart(order, target, problem.values, **options)
        for gradients in problem.gradients:
            advance(made, apart(order, gradients))
        assert_same_everywhere(made, reference_of(problem, **options))


@pytest.mark.parametrize("trial", range(5))
def test_random_combinations_on_several_devices(rng, target, rule, devices, trial):
    options = random_options(rng)
    problem = random_problem(rng, SMALL, 10, DTYPES, DTYPES, exponents=(-3, 2))
    made = start_apart(devices, target, problem.values, **options)
    for gradients in problem.gradients:
        advance(made, apart(devices, gradients))
    assert_same_everywhere(made, reference_of(problem, **options))


@pytest.mark.parametrize("name", OPTIONS)
def test_no_step_on_several_devices_waits(rng, target, rule, devices, name):
    """Large and small in turn, so that now one device is behind, now the other."""
    problem = random_problem(rng, [(2_000_003,), (5,), (7,), (1_000_001,)], 30, none=0.3)
    options = {**OPTIONS[name], **rule.largest}
    made = start_apart(devices, target, problem.values, **options)
    there = [apart(devices, gradients) for gradients in problem.gradients]
    for gradients in there[:3]:
        step_with(made, gradients)
    with nothing_waits(devices[0]):
        for gradients in there[3:]:
            step_with(made, gradients)
    assert_same_end(made, reference_of(problem, **options))


def test_an_outside_grad_scaler_on_several_devices(rng, target, devices):
    """Its tensors are on one of the devices, or on the other."""
    problem = random_problem(rng, SMALL, 6)
    runs = []
    for name in (target.backend, "reference"):
        made = (
            start(problem.values, name, max_grad_norm=0.5)
            if name == "reference"
            else start_apart(devices, target, problem.values, max_grad_norm=0.5)
        )
        for step, gradients in enumerate(problem.gradients):
            where = devices[step % 2] if name != "reference" else torch.device("cpu")
            made.opt.grad_scale = torch.tensor(8.0, device=where)
            made.opt.found_inf = torch.tensor(float(step == 3), device=where)
            advance(made, gradients if name == "reference" else apart(devices, gradients))
        runs.append(made)
    assert_same_everywhere(*runs)


def test_a_capture_of_several_devices_is_refused(rng, target, devices):
    """A graph belongs to one device."""
    problem = random_problem(rng, [(5,), (7,)], 2, none=0.0)
    made = start_apart(devices, target, problem.values)
    advance(made, apart(devices, problem.gradients[0]))

    def something_before():  # torch warns of a graph with nothing in it
        made.params[0].grad.add_(0.0)
        made.opt.step()

    with pytest.raises(RuntimeError, match=r"on several devices .* a CUDA graph belongs to one"):
        captured(something_before, devices[0])
    advance(made, apart(devices, problem.gradients[1]))
    assert_same_end(made, reference_of(problem))


def test_a_cpu_among_several_devices_is_for_the_reference(target, devices):
    params = [torch.nn.Parameter(torch.ones(5, device=device)) for device in ("cpu", devices[0])]
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="on devices of different types"):
        lrfused.AdamW(params, backend=target.backend).step()
    lrfused.AdamW(params).step()
    assert torch.equal(params[0], params[1].cpu())
