"""The CUDA kernels equal the reference bit for bit, in any order of blocks and threads."""

import pytest
import torch
from step.helpers import (
    DTYPES,
    EDGES,
    FEW,
    SMALL,
    advance,
    assert_same_bits,
    assert_same_contents,
    assert_same_run,
    contents,
    random_problem,
    run,
    start,
    words,
)
from step.test_equality import POISONED, SINGLE, poison, random_options

import lrfused
from lrfused import schedules as S

INF = float("inf")
CLIPPED = {"max_grad_norm": 0.5, "clip_value": 0.3, "agc": 0.1, "amsgrad": True}

pytestmark = pytest.mark.usefixtures("cuda")


def assert_equal(problem, **options):
    """The same bits as the reference; the run is returned."""
    got = run(problem, "cuda", **options)
    assert_same_run(got, run(problem, **options))
    return got


@pytest.mark.parametrize("name", SINGLE)
def test_every_option(rng, name):
    problem = random_problem(rng, FEW, steps=20)
    if name in POISONED:
        problem = poison(rng, problem, 0.05)
    assert_equal(problem, **SINGLE[name])


@pytest.mark.parametrize("trial", range(12))
def test_random_combinations(rng, trial):
    problem = random_problem(rng, SMALL, 12, DTYPES, DTYPES, exponents=(-3, 2))
    assert_equal(poison(rng, problem, 0.02), **random_options(rng))


@pytest.mark.parametrize("trial", range(3))
def test_sizes_at_the_edges_of_blocks_and_chunks(rng, trial):
    problem = random_problem(rng, EDGES, 2, DTYPES, DTYPES)
    assert_equal(problem, **random_options(rng))


def test_the_same_bits_in_any_order_of_blocks_and_threads(rng, cuda):
    problem = random_problem(rng, [(20000,), (513,), (3, 700)], 2)
    want = run(problem, **CLIPPED)
    for _ in range(4):
        cuda.seed(int(rng.numpy.integers(2**63)))
        assert_same_run(run(problem, "cuda", **CLIPPED), want)


@pytest.mark.parametrize("exponent", [-30, -21, 19, 20])
@pytest.mark.parametrize("clips", [False, True])
def test_squares_that_leave_float32(rng, exponent, clips):
    """Seen in grad_norm, and after the value clip in the factors of adaptive clipping."""
    size = 10.0**exponent
    options = {"clip_value": size / 3, "agc": size / 1e3, "accumulation_steps": 3} if clips else {}
    problem = random_problem(rng, [(700,), (20000,)], 1, exponents=(exponent, exponent))
    zeros = problem.map_gradients(lambda g: g * (torch.rand(g.shape, generator=rng.torch) < 0.01))
    assert_equal(zeros, max_grad_norm=1.0, **options)


# Types and places in memory


@pytest.mark.parametrize("gradient_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pair_of_dtypes(rng, dtype, gradient_dtype):
    problem = random_problem(rng, [(), (63,), (9000,)], 2, (dtype,), (gradient_dtype,))
    assert_equal(problem, write_grads=True, **CLIPPED)


def with_moments_of(dtypes, made):
    """Every moment in a dtype of its own."""
    for param in made.params:
        for key, dtype in dtypes.items():
            if key in made.opt.state[param]:
                made.opt.state[param][key] = made.opt.state[param][key].to(dtype)


@pytest.mark.parametrize("trial", range(16))
def test_any_mixture_of_dtypes(rng, trial):
    """Moments of the parameter's dtype, of one other, of several."""

    def one():
        return DTYPES[rng.numpy.integers(len(DTYPES))]

    moment = one()
    dtypes = {
        "exp_avg": moment,
        "exp_avg_sq": one() if trial % 3 == 0 else moment,
        "max_exp_avg_sq": one() if trial % 3 == 1 else moment,
    }
    problem = random_problem(rng, [(5,), (1100,)], 3, (one(),), (one(),), none=0.0)
    options = {"amsgrad": bool(trial % 2), "max_grad_norm": 0.5, "write_grads": True}
    got, want = (start(problem.values, backend, **options) for backend in ("cuda", "reference"))
    for gradients in problem.gradients:
        for made in (got, want):
            advance(made, gradients)
            with_moments_of(dtypes, made)
    assert_same_run(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_aligned_and_unaligned_memory(rng, dtype):
    """The same numbers at every distance from a multiple of 16 bytes: the same bits."""
    problem = random_problem(rng, [(9001,)], 2, (dtype,), none=0.0)
    want = run(problem, **CLIPPED)
    for shift in range(0, 16 // dtype.itemsize, 3):
        memory = torch.zeros(9017, dtype=dtype)
        aligned = -memory.data_ptr() % 16 // dtype.itemsize
        made = start([torch.zeros(9001, dtype=dtype)], "cuda", **CLIPPED)
        made.params[0].data = memory[aligned + shift : aligned + shift + 9001]
        made.params[0].data.copy_(problem.values[0])
        for gradients in problem.gradients:
            advance(made, gradients)
        assert_same_contents(contents(made), contents(want))


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_unaligned_gradients(rng, shift):
    problem = random_problem(rng, [(9001,)], 2, none=0.0)
    shifted = problem.map_gradients(
        lambda g: torch.cat([torch.zeros(shift), g])[shift:]  # a view
    )
    got, want = (start(problem.values, backend, **CLIPPED) for backend in ("cuda", "reference"))
    for gradients in shifted.gradients:
        for made in (got, want):
            made.params[0].grad = gradients[0]
            made.opt.step()
    assert_same_contents(contents(got), contents(want))


# Many of everything


def test_more_tensors_than_the_smaller_kernels_take(rng, cuda):
    """Their parameters have room for less than 4096 bytes."""
    assert cuda.module.parameter_capacity() > 4000
    problem = random_problem(rng, [(2,)] * 515, 1, none=0.4)
    assert_equal(problem, max_grad_norm=0.1)


def test_more_tensors_than_parameters_of_a_kernel(rng, cuda, monkeypatch):
    """A table of gradients on the device."""
    monkeypatch.setattr(cuda.module, "parameter_capacity", lambda: 3)
    problem = random_problem(rng, SMALL, 5, none=0.4)
    got = assert_equal(problem, max_grad_norm=0.1)
    assert got.opt._engine._table.run._gradients is not None


def test_more_groups_programs_and_units_than_threads(rng):
    """Each group with a schedule, each tensor with a count, each unit with a factor of its own."""
    problem = random_problem(rng, [(2,)] * 140 + [(150, 2)], 3, none=0.4)
    groups = tuple(
        {"lr": S.linear(0.1 / (i + 1), 0.01, 5 + i), "start_step": i % 2} for i in range(140)
    )
    assert_equal(problem, groups=groups, agc=0.05, max_grad_norm=0.1)


def test_units_of_several_chunks(rng):
    problem = random_problem(rng, [(2, 65537), (70000,), (3, 5)], 1)
    assert_equal(problem, agc=0.01, max_grad_norm=0.1, groups=({}, {"clip_value": 1e-3}))


def test_more_chunks_than_lanes(rng):
    """The chunks of each thread's second lane, and of a second turn."""
    problem = random_problem(rng, [(1,)] * 600, 1)
    assert_equal(problem, groups=({"clip_value": 0.5}, {"agc": 0.05}), max_grad_norm=0.1)


def long_schedule(rng):
    """As many instructions as a schedule may have, and as many constants as they can take."""
    terms = [S.step * float(x) + float(x) for x in rng.numpy.uniform(1e-6, 1e-5, 64)]
    while len(terms) > 1:
        terms = [x + y for x, y in zip(terms[::2], terms[1::2], strict=True)]
    for i in range(64):
        terms[0] = terms[0] + 1e-6 / (i + 3)
    return terms[0]


def test_programs_of_which_one_fits_in_shared_memory(rng):
    """Beside short ones, in several turns."""
    problem = random_problem(rng, FEW, 3)
    lr, clip = long_schedule(rng), long_schedule(rng)
    assert len(lr.program.code) > 250
    groups = ({"clip_value": clip}, {"eps": S.linear(1e-6, 1e-8, 3)}, {"lr": S.exp(-S.step)})
    assert_equal(problem, lr=lr, groups=groups, max_grad_norm=0.1)


def test_inputs_of_every_dtype(rng):
    dtypes = (*DTYPES, torch.int64, torch.int32)
    inputs = [torch.tensor(float(rng.numpy.integers(1, 9))).to(dtype) for dtype in dtypes]
    lr = sum((S.input(t, f"x{i}") for i, t in enumerate(inputs)), S.constant(1.0)) * 1e-4
    problem = random_problem(rng, FEW, 3)
    got, want = (start(problem.values, b, lr=lr) for b in ("cuda", "reference"))
    for gradients in problem.gradients:
        for made in (got, want):
            advance(made, gradients)
        inputs[0].add_(1)
    assert_same_run(got, want)


# What comes and goes


def test_a_parameter_whose_first_gradient_comes_late(rng):
    problem = random_problem(rng, [(5,), (7,), (9,)], 8)
    for step in range(5):
        problem.gradients[step][1] = None
    assert_equal(problem, max_grad_norm=1.0)


def test_a_new_dtype_of_gradients_in_mid_run(rng):
    """Two quarters of a chunk a block, then one."""
    problem = random_problem(rng, [(20000,), (3,)], 1, gradient_dtypes=(torch.bfloat16,))
    for dtype in (torch.float32, torch.float16, torch.float64):
        other = random_problem(rng, [(20000,), (3,)], 1, gradient_dtypes=(dtype,))
        problem.gradients.extend(other.gradients)
    assert_equal(problem, loss_scale=lrfused.LossScale(init=4.0))


@pytest.mark.filterwarnings("ignore:param_groups")
def test_numbers_that_the_caller_writes(rng):
    """Over a schedule, and back; and weight decay, which is a number."""
    problem = random_problem(rng, FEW, 6)
    lr = S.warmup_cosine(1e-2, 2, 6)
    got, want = (start(problem.values, b, lr=lr) for b in ("cuda", "reference"))
    for step, gradients in enumerate(problem.gradients):
        for made in (got, want):
            group = made.opt.param_groups[0]
            mirrored = group["lr"]
            if step == 2:
                group["lr"] = 0.5
            group["weight_decay"] = 0.01 * step
            advance(made, gradients)
            if step == 2:
                group["lr"] = mirrored
    assert_same_run(got, want)


def test_two_runs_have_the_same_bits(rng):
    problem = random_problem(rng, [(20000,), (513,)], 2)
    first, second = (run(problem, "cuda", **CLIPPED) for _ in range(2))
    assert_same_contents({**contents(first), **words(first)}, {**contents(second), **words(second)})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_rounding_to_16_bits_is_torchs(rng, dtype, wide):
    """The first m is 0 + g / 2: neighbours, ties, subnormals, overflows and nan."""
    low = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    gaps = torch.randn(len(low), generator=rng.torch) * 2.0**-9
    ties = (low + torch.roll(low, -1)) / 2
    numbers = torch.cat([low, low * (1 + gaps), ties]).to(wide)
    made = start([torch.zeros(len(numbers), dtype=dtype)], "cuda", betas=(0.5, 0.5))
    advance(made, [numbers])
    want = (0.0 + numbers.float() * 0.5).to(dtype)
    assert_same_bits(made.opt.state[made.params[0]]["exp_avg"], want)
