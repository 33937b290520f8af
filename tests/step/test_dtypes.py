"""Every pair of parameter and gradient dtype, state of another dtype, subnormal numbers."""

import threading

import pytest
import torch

from .helpers import (
    DTYPES,
    INSTRUCTION_SETS,
    advance,
    assert_same_bits,
    assert_same_run,
    needs_cpp,
    random_problem,
    run,
    start,
)

pytestmark = needs_cpp

CLIPPED = {"max_grad_norm": 0.5, "clip_value": 0.3, "agc": 0.1, "amsgrad": True}


@pytest.mark.parametrize("gradient_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pair_with_every_instruction_set(rng, dtype, gradient_dtype):
    shapes = [(), (63,), (5, 13), (600,)]
    problem = random_problem(rng, shapes, 15, (dtype,), (gradient_dtype,))
    for options in ({}, {**CLIPPED, "write_grads": True}):
        want = run(problem, **options)
        for name in INSTRUCTION_SETS:
            assert_same_run(run(problem, "cpu", instruction_set=name, **options), want)


def every_number(dtype):
    """All 65,536 bit patterns of a 16-bit type."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_16_bit_number_is_read_and_written_as_torch_does(name, dtype):
    """Through a step with lr 0."""
    numbers = every_number(dtype)
    numbers = numbers[torch.isfinite(numbers)]
    options = {"lr": 0.0, "weight_decay": 0.0}
    made = start([numbers], "cpu", instruction_set=name, **options)
    advance(made, [torch.zeros_like(numbers)])
    assert_same_bits(made.params[0], numbers)


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_rounding_to_16_bits_is_torchs(rng, name, dtype, wide):
    """The first m is 0 + g / 2: neighbours, ties, subnormals, overflows and nan."""
    low = every_number(dtype).float()
    gaps = torch.randn(len(low), generator=rng.torch) * 2.0**-9
    halves = low + (low.nextafter(torch.tensor(torch.inf)) - low)
    ties = (low + torch.roll(low, -1)) / 2  # halfway between neighbours
    numbers = torch.cat([low, low * (1 + gaps), ties, halves]).to(wide)
    zeros = torch.zeros(len(numbers), dtype=dtype)
    made = start([zeros], "cpu", instruction_set=name, betas=(0.5, 0.5))
    advance(made, [numbers])
    want = (0.0 + numbers.float() * 0.5).to(dtype)
    assert_same_bits(made.opt.state[made.params[0]]["exp_avg"], want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_of_another_dtype(rng, dtype):
    """A caller may rebind the moments, as when a checkpoint holds them in float32."""
    problem = random_problem(rng, [(5, 13), (65,)], 12, DTYPES)

    def rebound(backend):
        made = start(problem.values, backend, amsgrad=True)
        advance(made, problem.gradients[0])
        for p in made.params:
            for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                made.opt.state[p][key] = made.opt.state[p][key].to(dtype)
        for gradients in problem.gradients[1:]:
            advance(made, gradients)
        assert all(made.opt.state[p]["exp_avg"].dtype == dtype for p in made.params)
        return made

    assert_same_run(rebound("cpu"), rebound("reference"))


TINY = {"lr": 1e-39, "eps": 1e-30, "weight_decay": 0.0}


def tiny_problem(rng):
    """float32 parameters, moments and gradients below 2**-126; enough for several threads."""
    problem = random_problem(rng, [(200, 170), (65,)], 2, none=0.0, exponents=(-20, -20))
    values = [value * 1e-39 for value in problem.values]
    return type(problem)(values, problem.gradients)


def test_subnormal_numbers_are_not_flushed(rng):
    problem = tiny_problem(rng)
    want = run(problem, **TINY)
    assert all(torch.any((p != 0) & (p.abs() < 2.0**-126)) for p in want.params)
    assert torch.any(want.opt.state[want.params[0]]["exp_avg_sq"] != 0)
    for name in INSTRUCTION_SETS:
        assert_same_run(run(problem, "cpu", instruction_set=name, **TINY), want)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_set_flush_denormal_changes_nothing(rng, threads):
    """In a thread of its own: its OpenMP workers are born with the mode that it has set."""
    problem = tiny_problem(rng)
    options = {**TINY, "max_grad_norm": 1.0}
    want = run(problem, **options)
    seen = {}

    def flushed():
        seen["supported"] = torch.set_flush_denormal(True)
        torch.set_num_threads(threads)
        torch.ones(2**20).mul_(2.0)  # makes the workers
        seen["run"] = run(problem, "cpu", **options)
        seen["still on"] = float(torch.tensor(1e-39) * 1.0) == 0.0
        torch.set_flush_denormal(False)

    thread = threading.Thread(target=flushed)
    thread.start()
    thread.join()
    assert seen["supported"] and seen["still on"]
    assert_same_run(seen["run"], want)
