"""The Triton backend equals the reference bit for bit, in the interpreter."""

import pytest
import torch
from interpreting import is_there
from step.helpers import (
    DTYPES,
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
from step.test_equality import LR, POISONED, SINGLE, poison, random_options

import lrfused
from lrfused import schedules as S

if not is_there:
    pytest.skip("Triton is not installed or not interpreted", allow_module_level=True)

import triton.language as tl

from lrfused.triton import hyperparameters, norms, plan
from lrfused.triton import step as triton_step

INF = float("inf")
SIZES = [(0, 3), (511,), (513,), (8193,), (65537,), (3, 8200), (0,)]
CLIPPED = {"max_grad_norm": 0.5, "clip_value": 0.3, "agc": 0.1, "amsgrad": True}


@pytest.fixture(autouse=True)
def one_thread():
    """The interpreter's threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that are launched, with their compile-time constants."""
    seen = []

    def launch(kernel, programs, device, arguments, *constants):
        seen.append((kernel.fn.__name__, constants))
        original(kernel, programs, device, arguments, *constants)

    original = triton_step.launch
    monkeypatch.setattr(triton_step, "launch", launch)
    return seen


def assert_equal(problem, **options):
    """The same bits as the reference; the run is returned."""
    got = run(problem, "triton", **options)
    assert_same_run(got, run(problem, **options))
    return got


@pytest.mark.parametrize("name", SINGLE)
def test_every_option(rng, name):
    problem = random_problem(rng, FEW, steps=6)
    if name in POISONED:
        problem = poison(rng, problem, 0.1)
    assert_equal(problem, **SINGLE[name])


@pytest.mark.parametrize("trial", range(5))
def test_random_combinations(rng, trial):
    problem = random_problem(rng, SMALL, 5, DTYPES, DTYPES, exponents=(-3, 2))
    assert_equal(poison(rng, problem, 0.05), **random_options(rng))


@pytest.mark.parametrize("trial", range(2))
def test_sizes_at_the_edges_of_blocks_and_chunks(rng, trial):
    problem = random_problem(rng, SIZES, 2, DTYPES, DTYPES)
    assert_equal(problem, **{**random_options(rng), "agc_by": "tensor"})


@pytest.mark.parametrize("exponent", [-30, -21, 19, 20])
@pytest.mark.parametrize("clips", [False, True])
def test_squares_that_leave_float32(rng, exponent, clips):
    """Seen in grad_norm, and after the value clip in the factors of adaptive clipping."""
    size = 10.0**exponent
    options = {"clip_value": size / 3, "agc": size / 1e3, "accumulation_steps": 3} if clips else {}
    problem = random_problem(rng, [(700,), (20000,)], 1, exponents=(exponent, exponent))
    zeros = problem.map_gradients(lambda g: g * (torch.rand(g.shape, generator=rng.torch) < 0.01))
    assert_equal(zeros, max_grad_norm=1.0, **options)


@pytest.mark.parametrize("gradient_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pair_of_dtypes(rng, dtype, gradient_dtype):
    problem = random_problem(rng, [(), (63,), (1100,)], 2, (dtype,), (gradient_dtype,))
    assert_equal(problem, write_grads=True, **CLIPPED)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_rounding_to_16_bits_is_torchs(rng, dtype, wide):
    """The first m is 0 + g / 2: neighbours, ties, subnormals, overflows and nan."""
    low = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    gaps = torch.randn(len(low), generator=rng.torch) * 2.0**-9
    ties = (low + torch.roll(low, -1)) / 2
    numbers = torch.cat([low, low * (1 + gaps), ties]).to(wide)
    zeros = torch.zeros(len(numbers), dtype=dtype)
    made = start([zeros], "triton", betas=(0.5, 0.5))
    advance(made, [numbers])
    want = (0.0 + numbers.float() * 0.5).to(dtype)
    assert_same_bits(made.opt.state[made.params[0]]["exp_avg"], want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_aligned_and_unaligned_memory(rng, dtype):
    """The same numbers at every distance from a multiple of 16 bytes: the same bits."""
    problem = random_problem(rng, [(3000,)], 2, (dtype,), none=0.0)
    want = run(problem, **CLIPPED)
    for shift in range(0, 16 // dtype.itemsize, 3):
        memory = torch.zeros(3016, dtype=dtype)
        aligned = memory.data_ptr() % 16 // dtype.itemsize
        made = start([torch.zeros(3000, dtype=dtype)], "triton", **CLIPPED)
        made.params[0].data = memory[aligned + shift : aligned + shift + 3000]
        made.params[0].data.copy_(problem.values[0])
        for gradients in problem.gradients:
            advance(made, gradients)
        assert_same_contents(contents(made), contents(want))


def test_more_groups_tensors_and_units_than_lanes(rng, monkeypatch):
    """Each group with a schedule, each tensor with a count, each unit with a factor of its own."""
    for module in (hyperparameters, norms, plan):
        monkeypatch.setattr(module, "WIDTH", tl.constexpr(16))
    problem = random_problem(rng, [(2,)] * 20 + [(20, 2)], 3, none=0.4)
    groups = tuple(
        {"lr": S.linear(0.1 / (i + 1), 0.01, 5 + i), "start_step": i % 2} for i in range(20)
    )
    assert_equal(problem, groups=groups, agc=0.05, max_grad_norm=0.1)


def test_more_chunks_than_lanes(rng):
    """Those of groups that have not started are zeros; one in eight takes part."""
    problem = random_problem(rng, [(2,)] * 265, 1)
    groups = ({"agc": 0.05}, *[{"start_step": 9}] * 7)
    assert_equal(problem, groups=groups, max_grad_norm=0.1)


OUTSIDE = [
    {"grad_scale": 128.0, "found_inf": 0.0},
    {"grad_scale": torch.tensor(3.0), "found_inf": torch.tensor(0.0)},
    {"grad_scale": torch.tensor([5.0]), "found_inf": torch.tensor([1.0])},
    {"grad_scale": 7.0, "found_inf": 1},
]


@pytest.mark.parametrize("outside", OUTSIDE, ids=repr)
@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.5}, {"nonfinite": "raise"}], ids=repr)
def test_an_outside_grad_scaler(rng, outside, options):
    problem = random_problem(rng, FEW, 2)
    got, want = (start(problem.values, b, **options) for b in ("triton", "reference"))
    for gradients in problem.gradients:
        for made in (got, want):
            vars(made.opt).update(outside)
            advance(made, gradients)
    assert_same_run(got, want)


# What is refused


@pytest.mark.parametrize(
    ("slot", "value"), [("lr", float("nan")), ("eps", INF), ("weight_decay", -INF)]
)
def test_an_unusable_hyperparameter_changes_nothing(rng, slot, value):
    problem = random_problem(rng, FEW, 2)
    made = start(problem.values, "triton", groups=({}, {}), max_grad_norm=1.0)
    advance(made, problem.gradients[0])
    made.opt.param_groups[1][slot] = value
    before = contents(made)
    with pytest.raises(RuntimeError, match=rf"step 1: {slot} of param_groups\[1\] is {value}"):
        advance(made, problem.gradients[0])
    assert_same_contents(contents(made), before)


def test_an_impossible_count_changes_nothing(rng):
    problem = random_problem(rng, FEW, 1)
    made = start(problem.values, "triton")
    advance(made, problem.gradients[0])
    made.opt.state[made.params[2]]["step"].fill_(-1.0)
    before = contents(made)
    with pytest.raises(RuntimeError, match=r"state\['step'\] of parameter 2 is -1.0"):
        advance(made, problem.gradients[0])
    assert_same_contents(contents(made), before)


@pytest.mark.parametrize("value", [INF, -INF, float("nan")])
def test_a_gradient_that_is_not_finite_raises_if_asked_to(rng, value):
    problem = random_problem(rng, FEW, 1)
    made = start(problem.values, "triton", nonfinite="raise")
    problem.gradients[0][3][64] = value
    before = [p.clone() for p in made.params]
    with pytest.raises(RuntimeError, match="step 0: a gradient is not finite"):
        advance(made, problem.gradients[0])
    for p, q in zip(made.params, before, strict=True):
        assert_same_bits(p, q)


# Launches, determinism, what is compiled


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["plan_kernel", "apply_kernel"]),
        ({"clip_value": 1.0}, ["plan_kernel", "apply_kernel"]),
        ({"max_grad_norm": 1.0}, ["measure_kernel", "apply_kernel"]),
        ({"loss_scale": "dynamic"}, ["measure_kernel", "apply_kernel"]),
        ({"agc": 0.1, "amsgrad": True}, ["measure_kernel", "apply_kernel"]),
    ],
)
def test_two_launches_a_step_for_any_mixture(rng, launches, options, names):
    problem = random_problem(rng, SMALL, 3, DTYPES, DTYPES)
    run(problem, "triton", groups=({}, {"weight_decay": 0.5}), **options)
    assert [name for name, _ in launches] == names * 3


def test_empty_parameters_are_one_launch(rng, launches):
    made = start([torch.zeros(0, 3)], "triton", max_grad_norm=1.0)
    advance(made, [torch.zeros(0, 3)])
    assert [name for name, _ in launches] == ["plan_kernel"]
    assert made.opt.metrics()["grad_norm"] == 0.0


def test_two_runs_have_the_same_bits(rng):
    problem = random_problem(rng, [(20000,), (513,)], 2)
    first, second = (run(problem, "triton", **CLIPPED) for _ in range(2))
    assert_same_contents({**contents(first), **words(first)}, {**contents(second), **words(second)})


@pytest.mark.filterwarnings("ignore:param_groups")
@pytest.mark.filterwarnings("ignore:load_state_dict")
def test_numbers_are_data(rng, launches):
    """Another peak, an override, a loaded counter: the same compile-time constants."""
    problem = random_problem(rng, FEW, 2)
    made = start(problem.values, "triton", lr=LR, max_grad_norm=1.0)
    advance(made, problem.gradients[0])
    made.opt.param_groups[0]["lr"] = 0.5
    advance(made, problem.gradients[1])
    other = S.warmup_cosine(3e-2, warmup_steps=7, total_steps=99, end=1e-5)
    another = start(problem.values, "triton", lr=other, max_grad_norm=0.3)
    another.opt.load_state_dict(made.opt.state_dict())
    advance(another, problem.gradients[0])
    first = launches[:2]
    assert [launches[i : i + 2] for i in (2, 4)] == [first, first]


def test_an_overridden_clip_value_is_that_of_measure_and_apply(rng):
    """measure evaluates the program of clip_value before plan does."""
    problem = random_problem(rng, FEW, 4)
    schedule = S.select(S.less(S.step, 2), 0.3, S.cos(S.step) ** 2 + 1e-3)
    assert_equal(problem, clip_value=schedule, max_grad_norm=0.2)


def test_a_new_dtype_of_gradients_in_mid_run(rng):
    problem = random_problem(rng, FEW, 2, (torch.float32,), (torch.float32,))
    other = random_problem(rng, FEW, 2, (torch.float32,), (torch.bfloat16,))
    problem.gradients.extend(other.gradients)
    assert_equal(problem, loss_scale=lrfused.LossScale(init=4.0))
