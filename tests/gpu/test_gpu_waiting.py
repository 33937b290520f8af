"""Nothing of a step waits for the device; two launches at most; streams are kept apart."""

import pytest
import torch
from lib.options import LR
from lib.runs import DTYPES, SMALL, random_problem

from .helpers import (
    another_stream,
    assert_same_end,
    nothing_waits,
    on,
    reference_of,
    start_on,
    step_with,
)
from .target import launched, wait

pytestmark = pytest.mark.gpu

STEADY = 3  # steps after which nothing is new
OPTIONS = {
    "step": {},
    "clip and schedule": {"lr": LR, "max_grad_norm": 1.0},
    "dynamic scale": {"loss_scale": "dynamic", "lr": LR},
    "raise": {"nonfinite": "raise"},
    "adaptive clip": {"agc": 0.05, "clip_value": 0.3},
    "two groups": {"groups": ({}, {"weight_decay": 0.5, "start_step": 2}), "max_grad_norm": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_no_step_waits(rng, target, rule, name):
    """Not with kept gradients, not with other ones at every step."""
    problem = on(target.device, random_problem(rng, SMALL, 30, none=0.0))
    made = start_on(target, problem.values, **OPTIONS[name], **rule.largest)
    for gradients in problem.gradients[:STEADY]:
        step_with(made, gradients)
    wait()
    with nothing_waits(target.device):
        for gradients in problem.gradients[STEADY:]:
            step_with(made, gradients)
        for _ in range(5):
            made.opt.step()
    assert made.opt.metrics()["steps"] == len(problem.gradients) + 5


@pytest.mark.parametrize("name", OPTIONS)
def test_two_launches_at_most(rng, target, rule, record_property, name):
    """For any mixture of sizes and dtypes; counted by torch's profiler."""
    problem = on(target.device, random_problem(rng, SMALL, STEADY, DTYPES, DTYPES, none=0.0))
    made = start_on(target, problem.values, **OPTIONS[name], **rule.largest)
    for gradients in problem.gradients:
        step_with(made, gradients)
    kernels = launched(made.opt.step).kernels
    record_property("kernels", kernels)
    assert len(kernels) <= 2, kernels
    assert kernels or target.dry


def test_a_thousand_tensors_are_two_launches(rng, target, record_property):
    problem = on(target.device, random_problem(rng, [(64,)] * 1000, STEADY, none=0.0))
    made = start_on(target, problem.values, lr=LR, max_grad_norm=1.0)
    for gradients in problem.gradients:
        step_with(made, gradients)
    kernels = launched(made.opt.step).kernels
    record_property("kernels", kernels)
    assert len(kernels) <= 2, kernels


# Streams and devices


def test_steps_on_changing_streams(rng, target):
    """The gradients are made on the stream of the step, a long piece of work before them."""
    problem = random_problem(rng, [(70_001,), (3,), (513,)], 12, none=0.0)
    there = on(target.device, problem)
    made = start_on(target, problem.values, lr=LR, max_grad_norm=1.0)
    busy = torch.randn(target.count(2048, dry=8), target.count(2048, dry=8), device=target.device)
    for step, gradients in enumerate(there.gradients):
        with another_stream(target.device):
            work = busy
            for _ in range(step % 3):
                work = work @ busy
            zero = work.sum() * 0.0 if step % 3 else torch.zeros((), device=target.device)
            step_with(made, [g + torch.nan_to_num(zero) for g in gradients])
    want = reference_of(problem, lr=LR, max_grad_norm=1.0)
    assert_same_end(made, want)


def test_two_optimizers_on_two_streams(rng, target):
    """At the same time, and none of them sees anything of the other."""
    sizes = [(target.count(200_003, dry=2003),), (5,)]
    problems = [random_problem(rng, sizes, 20, none=0.0) for _ in range(2)]
    there = [on(target.device, problem) for problem in problems]
    made = [start_on(target, p.values, lr=LR, max_grad_norm=1.0) for p in problems]
    on_a_gpu = target.device.type == "cuda"
    streams = [torch.cuda.Stream() if on_a_gpu else None for _ in range(2)]
    wait()
    for step in range(20):
        for which in (0, 1):
            context = torch.cuda.stream(streams[which]) if on_a_gpu else torch.no_grad()
            with context:
                step_with(made[which], there[which].gradients[step])
    wait()
    for which in (0, 1):
        want = reference_of(problems[which], lr=LR, max_grad_norm=1.0)
        assert_same_end(made[which], want)


def test_memory_of_a_table_that_is_dropped(rng, target):
    """A step on another stream, which has not ended, still reads it."""
    problem = random_problem(rng, [(70_001,), (3,), (513,)], 2, none=0.0)
    there = on(target.device, problem)
    made = start_on(target, problem.values, lr=LR, max_grad_norm=1.0)
    step_with(made, there.gradients[0])
    busy = torch.randn(target.count(4096, dry=8), target.count(4096, dry=8), device=target.device)
    wait()
    stream = None if target.device.type == "cpu" else torch.cuda.Stream()
    with torch.no_grad() if stream is None else torch.cuda.stream(stream):
        for _ in range(target.count(10, dry=1)):
            busy = busy @ busy
        step_with(made, there.gradients[1])
    made.opt._engine.forget_table()
    sizes = [1 << power for power in range(4, 20)]
    taken = [torch.full((n,), -1, device=target.device) for n in sizes for _ in range(8)]
    wait()
    assert len(taken) == 128
    assert_same_end(made, reference_of(problem, lr=LR, max_grad_norm=1.0))


def test_another_device_than_the_current_one(rng, target):
    """An optimizer for each device, while the first is the current one."""
    if target.dry or torch.cuda.device_count() < 2:
        pytest.skip("one device")
    problem = random_problem(rng, SMALL, 10, DTYPES, DTYPES)
    want = reference_of(problem, lr=LR, max_grad_norm=1.0)
    runs = []
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        made = start_on(target._replace(device=device), problem.values, lr=LR, max_grad_norm=1.0)
        runs.append((made, on(device, problem)))
    for step in range(len(problem.gradients)):
        for made, there in runs:
            step_with(made, there.gradients[step])
    for made, _ in runs:
        assert_same_end(made, want)
