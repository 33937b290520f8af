"""What compilers make for each architecture: by nvcc every type and way, over whole tiles."""

import itertools

import pytest
import torch
from lib.options import two_of_three
from lib.random_schedules import WORST_FOR_COS
from lib.runs import DTYPES, assert_same_run, random_problem, run

from lrfused import schedules as S

# The first is that of the other tests; sm_100 has 32-byte accesses and conversions of its own.
ARCHITECTURES = [
    pytest.param("90", id="sm_90"),
    pytest.param("100", id="sm_100"),
    pytest.param("80", id="sm_80", marks=pytest.mark.slow),
    pytest.param("120", id="sm_120", marks=pytest.mark.slow),
]
SHAPES = [(8192 + 77,), (3, 1400), (2, 9), (4096,)]
CLIPPED = {"clip_value": 0.3, "max_grad_norm": 1.0, "write_grads": True, "maximize": True}
WAYS = {
    "plain": {},
    "clipped": CLIPPED,
    "by unit": {"agc": 0.01, "loss_scale": 1024.0, "norm_type": float("inf")},
    "riders": {"masks": two_of_three, "ema_decay": 0.5, "zero_grads": True},
}


@pytest.mark.parametrize("cuda_ptx", ARCHITECTURES, indirect=True)
@pytest.mark.parametrize("way", WAYS)
def test_whole_tiles(rng, cuda_ptx, rule, way):
    """Of all pairs of dtypes, with the update of the most operands, of the fewest and another."""
    for dtypes in itertools.product(DTYPES, DTYPES):
        problem = random_problem(rng, SHAPES, 2, *([dtype] for dtype in dtypes))
        for more in [{}, *filter(None, (rule.largest, rule.least))]:
            options = {**WAYS[way], **more}
            assert_same_run(run(problem, "cuda", **options), run(problem, **options))


# What Triton makes; sm_90 is that of the other tests.
TRITON = [pytest.param("100", id="sm_100"), pytest.param("80", id="sm_80", marks=pytest.mark.slow)]


@pytest.mark.parametrize("triton_ptx", TRITON, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES[1:3])
def test_triton(rng, triton_ptx, dtype):
    problem = random_problem(rng, SHAPES[:3], 2, [dtype])
    options = {"max_grad_norm": 1.0, "loss_scale": 1024.0}
    assert_same_run(run(problem, "triton", **options), run(problem, **options))


def with_wide_state(made) -> None:
    """State of 16 bits becomes float32, as somebody may want who has loaded a checkpoint."""
    for p in made.params:
        state = made.opt.state[p]
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.dtype in DTYPES[2:]:
                state[key] = value.float()


@pytest.mark.parametrize("cuda_ptx", ARCHITECTURES, indirect=True)
def test_state_of_another_dtype(rng, cuda_ptx, rule):
    for dtype, more in itertools.product(DTYPES[2:], ({}, CLIPPED, rule.largest)):
        problem = random_problem(rng, SHAPES, 3, [dtype])
        options = {**more, "between": with_wide_state}
        assert_same_run(run(problem, "cuda", **options), run(problem, **options))


def every_operation():
    """Of a learning rate, each with arguments that take its rare ways, too."""
    x = S.linear(0.0, 1.0, 6)
    factors = [S.cos(n * (x + 1.0)) for n in (0.0, 1.0, 1e5, 1e9, WORST_FOR_COS)]
    factors += [S.exp(-n * x) for n in (0.0, 1.0, 30.0, 720.0, 760.0)]
    factors += [S.log(n * x + 1e-310) / 800 for n in (0.0, 1.0, 1e300)]
    factors += [(n * x + 0.1) ** p for n, p in ((0.0, 2.0), (1.0, 1.7), (1.0, -3.0), (3.0, 0.0))]
    factors += [S.floor(5 * x) / 7, x % 0.3, (-x) % 0.3, S.sqrt(x), S.minimum(x, 0.5)]
    factors += [S.maximum(x, 0.5), S.less(x, 0.4), S.less_equal(0.4, x), S.equal(x, 0.5), 1 - x]
    factors += [S.table([0.3, 0.1, 0.7]), S.select(S.less(x, 0.4), x, 0.2), x * x - x / 3.0]
    inputs = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32)
    factors += [S.input(torch.ones((), dtype=d), f"i{i}") * x for i, d in enumerate(inputs)]
    return [1e-3 * (2.0 + factor) for factor in factors]


@pytest.mark.parametrize("cuda_ptx", ARCHITECTURES, indirect=True)
def test_schedules(rng, cuda_ptx):
    """Of every operation, three learning rates at a time, in groups of their own."""
    problem = random_problem(rng, [(5,), (70,), (3,)], 7)
    schedules = every_operation()
    for first in range(0, len(schedules), 3):
        groups = tuple({"lr": lr} for lr in schedules[first : first + 3])
        assert_same_run(run(problem, "cuda", groups=groups), run(problem, groups=groups))
