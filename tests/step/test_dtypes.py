"""Every pair of parameter and gradient dtype at any address, state of another dtype, subnormals."""

import threading

import pytest
import torch
from lib.runs import (
    DTYPES,
    advance,
    assert_as_reference,
    assert_same_bits,
    assert_same_contents,
    assert_same_run,
    contents,
    instruction_sets,
    needs_cpp,
    random_problem,
    run,
    shorter,
    start,
)

import lrfused

CLIPPED = {"max_grad_norm": 0.5, "clip_value": 0.3, "agc": 0.1}


@pytest.mark.parametrize("gradient_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pair_of_dtypes(rng, kernels, rule, dtype, gradient_dtype):
    shapes = [(), (63,), (9000,)]
    problem = random_problem(
        rng, shapes, shorter(kernels, 15, least=2), (dtype,), (gradient_dtype,)
    )
    assert_as_reference(problem, kernels)
    assert_as_reference(problem, kernels, write_grads=True, **CLIPPED, **rule.largest)


def test_a_new_dtype_of_gradients_in_mid_run(rng, kernels, rule):
    problem = random_problem(rng, [(20000,), (3,)], 1, gradient_dtypes=(torch.bfloat16,))
    for dtype in (torch.float32, torch.float16, torch.float64):
        other = random_problem(rng, [(20000,), (3,)], 1, gradient_dtypes=(dtype,))
        problem.gradients.extend(other.gradients)
    assert_as_reference(problem, kernels, loss_scale=lrfused.LossScale(init=4.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_aligned_and_unaligned_memory(rng, kernels, rule, dtype):
    """The same numbers at every distance from a multiple of 16 bytes: the same bits."""
    problem = random_problem(rng, [(9001,)], 2, (dtype,), none=0.0)
    options = {**CLIPPED, **rule.largest}
    want = run(problem, **options)
    for shift in range(0, 16 // dtype.itemsize, 3):
        memory = torch.zeros(9017, dtype=dtype)
        first = -memory.data_ptr() % 16 // dtype.itemsize + shift
        made = start([torch.zeros(9001, dtype=dtype)], kernels, **options)
        made.params[0].data = memory[first : first + 9001]
        made.params[0].data.copy_(problem.values[0])
        for gradients in problem.gradients:
            advance(made, gradients)
        assert_same_contents(contents(made), contents(want))


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_unaligned_gradients(rng, kernels, rule, shift):
    problem = random_problem(rng, [(9001,)], 2, none=0.0)
    options = {**CLIPPED, **rule.largest}
    made = start(problem.values, kernels, **options)
    for gradients in problem.gradients:
        made.params[0].grad = torch.cat([torch.zeros(shift), gradients[0]])[shift:]  # a view
        made.opt.step()
    assert_same_contents(contents(made), contents(run(problem, **options)))


# 16 bits


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def low(request):
    """All 65,536 bit patterns of a 16-bit type."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32)
    return numbers.to(torch.int16).view(request.param)


def test_every_16_bit_number_is_read_and_written_as_torch_does(kernels, rule, low):
    """Through a step with lr 0."""
    numbers = low[torch.isfinite(low)]
    for name in instruction_sets(kernels):
        options = {"lr": 0.0, "weight_decay": 0.0, "instruction_set": name}
        made = start([numbers], kernels, **options)
        advance(made, [torch.zeros_like(numbers)])
        assert_same_bits(made.params[0], numbers, name)


@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_rounding_to_16_bits_is_torchs(rng, kernels, low, wide):
    """The first m is 0 + g / 2: neighbours, ties, subnormals, overflows and nan."""
    dtype, numbers = low.dtype, low.float()
    gaps = torch.randn(len(numbers), generator=rng.torch) * 2.0**-9
    halves = numbers + (numbers.nextafter(torch.tensor(torch.inf)) - numbers)
    ties = (numbers + torch.roll(numbers, -1)) / 2  # halfway between neighbours
    numbers = torch.cat([numbers, numbers * (1 + gaps), ties, halves]).to(wide)
    want = (0.0 + numbers.float() * 0.5).to(dtype)
    for name in instruction_sets(kernels):
        zeros = torch.zeros(len(numbers), dtype=dtype)
        made = start([zeros], kernels, instruction_set=name, betas=(0.5, 0.5))
        advance(made, [numbers])
        assert_same_bits(made.opt.state[made.params[0]]["exp_avg"], want, name)


# State


def rebind(made, dtypes):
    """The operands of the state that there are in other dtypes."""
    for param in made.params:
        state = made.opt.state[param]
        for key, dtype in dtypes.items():
            if key in state:
                state[key] = state[key].to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_of_another_dtype(rng, kernels, rule, dtype):
    """A caller may rebind the moments, as when a checkpoint holds them in float32."""
    problem = random_problem(rng, [(5, 13), (65,)], shorter(kernels, 12, least=4), DTYPES)

    def rebound(backend):
        made = start(problem.values, backend, **rule.largest)
        advance(made, problem.gradients[0])
        rebind(made, dict.fromkeys(rule.keys, dtype))
        for gradients in problem.gradients[1:]:
            advance(made, gradients)
        assert all(made.opt.state[p][rule.keys[0]].dtype == dtype for p in made.params)
        return made

    assert_same_run(rebound(kernels), rebound("reference"))


@pytest.mark.parametrize("trial", range(16))
def test_any_mixture_of_dtypes(rng, kernels, rule, trial):
    """Operands of the state of the parameter's dtype, of one other, of several."""

    def one():
        return DTYPES[rng.numpy.integers(len(DTYPES))]

    # AdamW's three: all the same, the second another, the third another; with amsgrad or without.
    moment, largest = one(), rule.largest if trial % 2 else {}
    dtypes = dict.fromkeys(rule.keys, moment)
    if trial % 3 < len(rule.keys) - 1:
        dtypes[rule.keys[trial % 3 + 1]] = one()
    problem = random_problem(rng, [(5,), (1100,)], 3, (one(),), (one(),), none=0.0)
    options = {**largest, "max_grad_norm": 0.5, "write_grads": True}
    got, want = (start(problem.values, backend, **options) for backend in (kernels, "reference"))
    for gradients in problem.gradients:
        for made in (got, want):
            advance(made, gradients)
            rebind(made, dtypes)
    assert_same_run(got, want)


# Subnormal numbers

TINY = {"lr": 1e-39, "eps": 1e-30, "weight_decay": 0.0}


def tiny_problem(rng):
    """float32 parameters, moments and gradients below 2**-126; enough for several threads."""
    problem = random_problem(rng, [(200, 170), (65,)], 2, none=0.0, exponents=(-20, -20))
    values = [value * 1e-39 for value in problem.values]
    return type(problem)(values, problem.gradients)


def test_subnormal_numbers_are_not_flushed(rng, kernels):
    made = assert_as_reference(tiny_problem(rng), kernels, **TINY)
    assert all(torch.any((p != 0) & (p.abs() < 2.0**-126)) for p in made.params)
    assert torch.any(made.opt.state[made.params[0]]["exp_avg_sq"] != 0)


@needs_cpp
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
