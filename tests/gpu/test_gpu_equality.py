"""A GPU backend equals the reference, which runs on the CPU, bit for bit."""

import pytest
import torch
from lib.options import (
    LR,
    POISONED,
    over_every_option,
    poison,
    random_options,
    single_options,
)
from lib.runs import (
    DTYPES,
    EDGES,
    FEW,
    SMALL,
    advance,
    assert_same_contents,
    needs_cpp,
    random_problem,
    run,
    start,
)
from lib.tiny_gradients import tiny_share, with_tiny

from lrfused import schedules as S

from .helpers import (
    assert_same_end,
    assert_same_everywhere,
    left,
    on,
    reference_of,
    run_on,
    start_on,
)

pytestmark = pytest.mark.gpu

CLIPPED = {"max_grad_norm": 0.5, "clip_value": 0.3, "agc": 0.1}


def assert_equal(problem, target, **options):
    """The same bits and metrics at every step; the run is returned."""
    got = run_on(target, problem, **options)
    assert_same_everywhere(got, reference_of(problem, **options))
    return got


@over_every_option
def test_every_option(rng, target, rule, record_property, name):
    record_property("rule", rule.name)
    record_property("option", name)
    problem = random_problem(rng, FEW, target.count(40, dry=6))
    if name in POISONED:
        problem = poison(rng, problem, 0.05)
    assert_equal(problem, target, **single_options(rule)[name])


@pytest.mark.parametrize("gradient_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_pair_of_dtypes(rng, target, rule, dtype, gradient_dtype):
    problem = random_problem(rng, [(), (63,), (1100,)], 2, (dtype,), (gradient_dtype,))
    assert_equal(problem, target, write_grads=True, **CLIPPED, **rule.largest)


@pytest.mark.parametrize("trial", range(3))
def test_sizes_at_the_edges_of_blocks_and_chunks(rng, target, rule, trial):
    problem = random_problem(rng, EDGES, 2, DTYPES, DTYPES)
    assert_equal(problem, target, **random_options(rng))


@pytest.mark.parametrize("trial", range(5))
def test_random_combinations(rng, target, rule, trial):
    problem = random_problem(rng, SMALL, 10, DTYPES, DTYPES, exponents=(-3, 2))
    assert_equal(poison(rng, problem, 0.02), target, **random_options(rng))


def test_the_share_of_tiny_gradients(rng, target):
    """Zeros and subnormal numbers of every dtype, which no kernel flushes."""
    problem = with_tiny(rng, random_problem(rng, [*EDGES, *SMALL], 3, DTYPES, DTYPES))
    made = assert_equal(problem, target, always_measure=True)
    for step, metrics in enumerate(made.metrics):
        assert metrics["tiny_gradients"] == tiny_share(problem, step)


@needs_cpp
def test_all_backends_agree(rng, target):
    """Millions of elements, with everything that is measured; against the C++ kernels."""
    sizes = [(target.count(5_000_011, dry=70_001),), (1023, 129), (65536,), (3,)]
    problem = random_problem(rng, sizes, 3)
    options = {"lr": LR, "max_grad_norm": 1.0, "loss_scale": "dynamic", "agc": 0.1}
    got = run_on(target, problem, **options)
    assert_same_everywhere(got, reference_of(problem, "cpu", **options))


@pytest.mark.parametrize("exponent", [-30, -21, 19, 20])
def test_squares_that_leave_float32(rng, target, exponent):
    problem = random_problem(rng, [(700,), (70000,)], 1, exponents=(exponent, exponent))
    zeros = problem.map_gradients(lambda g: g * (torch.rand(g.shape, generator=rng.torch) < 0.01))
    assert_equal(zeros, target, max_grad_norm=1.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_aligned_and_unaligned_memory(rng, target, dtype):
    """The same numbers at every distance from a multiple of 16 bytes: the same bits."""
    problem = random_problem(rng, [(3000,)], 2, (dtype,), none=0.0)
    options = {**CLIPPED, "amsgrad": True}
    want = reference_of(problem, **options)
    there = on(target.device, problem)
    for shift in range(0, 16 // dtype.itemsize, 3):
        memory = torch.zeros(3016, dtype=dtype, device=target.device)
        first = -(memory.data_ptr() // dtype.itemsize) % (16 // dtype.itemsize) + shift
        made = start_on(target, [torch.zeros(3000, dtype=dtype)], **options)
        made.params[0].data = memory[first : first + 3000]
        made.params[0].data.copy_(there.values[0])
        for gradients in there.gradients:
            advance(made, gradients)
        assert_same_end(made, want)


def test_more_groups_and_tensors_than_threads_of_a_block(rng, target):
    """Each group with a schedule, each tensor with a count of its own."""
    problem = random_problem(rng, [(2,)] * 300, 3, none=0.4)
    groups = tuple(
        {"lr": S.linear(0.1 / (i + 1), 0.01, 5 + i), "start_step": i % 2} for i in range(300)
    )
    assert_equal(problem, target, groups=groups, agc=0.05, max_grad_norm=0.1)


def test_more_gradients_than_a_kernels_parameters_hold(rng, target):
    problem = random_problem(rng, [(3,)] * target.count(4500, dry=100), 2, none=0.1)
    assert_equal(problem, target, max_grad_norm=0.5)


def test_more_chunks_than_threads(rng, target):
    """The last block adds up more partial sums than it has threads."""
    sizes = [(65536 * target.count(300, dry=2) + 17,)]
    problem = random_problem(rng, sizes, 1)
    want = start(problem.values, "auto", max_grad_norm=0.5)
    advance(want, problem.gradients[0])
    got = run_on(target, problem, max_grad_norm=0.5)
    assert_same_contents(left(got), left(want))


def test_two_runs_have_the_same_bits(rng, target):
    problem = on(target.device, random_problem(rng, [(200_003,), (513,)], 5))
    first, second = (run(problem, target.backend, **CLIPPED, amsgrad=True) for _ in range(2))
    assert_same_contents(left(first), left(second))
