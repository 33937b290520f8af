"""metrics()["tiny_gradients"]: the share of gradients that are zero or subnormal."""

import math

import pytest
import torch
from lib.options import poison
from lib.runs import (
    DTYPES,
    EDGES,
    SMALL,
    advance,
    assert_as_reference,
    random_problem,
    run,
    shorter,
    start,
)
from lib.tiny_gradients import DIGITS, SMALLEST, tiny_share, with_tiny

INF, NAN = math.inf, math.nan
OPTIONS = {
    "all clips": {"clip_value": 0.1, "agc": 0.1, "max_grad_norm": 0.1, "norm_type": INF},
    "write_grads": {"write_grads": True, "nonfinite": "skip", "accumulation_steps": 3},
    "clip far below": {"maximize": True, "always_measure": True, "clip_value": 1e-30},
    "loss scale": {"loss_scale": "dynamic"},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_on_both_sides_of_every_edge(backend, dtype):
    """Of either sign; the step is skipped, and says nevertheless what was measured."""
    smallest = 2.0 ** SMALLEST[dtype]
    last = 2.0 ** (SMALLEST[dtype] - DIGITS[dtype])
    tiny = [0.0, last, smallest / 2, smallest - last]
    others = [smallest, smallest + last, 1.0, torch.finfo(dtype).max, INF, NAN]
    numbers = torch.tensor([tiny + others], dtype=torch.float64)
    gradient = torch.cat([numbers, -numbers]).to(dtype)
    assert torch.equal(gradient[0].double().nan_to_num(), numbers[0].nan_to_num())  # not rounded
    made = start([torch.zeros_like(gradient)], backend, nonfinite="skip")
    advance(made, [gradient])
    assert made.metrics[-1]["tiny_gradients"] == 4 / 10
    assert made.metrics[-1]["skipped_steps"] == 1


@pytest.mark.parametrize("parameter", DTYPES, ids=str)
@pytest.mark.parametrize("gradient", DTYPES, ids=str)
def test_of_gradients_of_another_dtype(rng, backend, gradient, parameter):
    """What is normal has to be so in the gradient's dtype and in that of the arithmetic."""
    problem = random_problem(rng, [(5, 13), (1027,), ()], 2, (parameter,), (gradient,))
    problem = with_tiny(rng, problem)
    made = run(problem, backend, always_measure=True)
    assert [m["tiny_gradients"] for m in made.metrics] == [tiny_share(problem, t) for t in (0, 1)]


@pytest.mark.parametrize("name", OPTIONS)
def test_over_all_tensors_of_all_dtypes(rng, backend, rule, name):
    """Padding is no gradient: odd sizes, tensors without elements or, at times, a gradient."""
    problem = random_problem(rng, SMALL, shorter(backend, 10, least=2), DTYPES)
    problem = poison(rng, with_tiny(rng, problem), 0.1)
    made = assert_as_reference(problem, backend, **OPTIONS[name])
    for step, metrics in enumerate(made.metrics):
        assert metrics["tiny_gradients"] == tiny_share(problem, step)


def test_of_long_tensors(rng, backend):
    problem = with_tiny(rng, random_problem(rng, EDGES, 1, DTYPES))
    made = assert_as_reference(problem, backend, max_grad_norm=1.0, agc=0.1, clip_value=0.5)
    assert made.metrics[0]["tiny_gradients"] == tiny_share(problem, 0)


@pytest.mark.parametrize("size", [1, 65, 511, 4097, 65537])
def test_all_of_them_none_and_one(backend, size):
    made = start([torch.zeros(size)], backend, always_measure=True)
    for value, want in ((0.0, 1.0), (1e-40, 1.0), (-1.0, 0.0)):
        advance(made, [torch.full((size,), value)])
        assert made.metrics[-1]["tiny_gradients"] == want
    gradient = torch.ones(size)
    gradient[size // 2] = -1e-45
    advance(made, [gradient])
    assert made.metrics[-1]["tiny_gradients"] == 1 / size


def test_a_loss_scale_lifts_them(backend):
    """They are measured as they come from backward, before anything is clipped."""
    wanted = torch.tensor([2.0**-20, 2.0**-13, -(2.0**-15), 1.0])
    for scale, share in ((1.0, 0.5), (32.0, 0.25), (128.0, 0.0)):
        zeros = torch.zeros(4, dtype=torch.float16)
        made = start([zeros], backend, loss_scale=scale, clip_value=1e-9)
        advance(made, [(wanted * scale).half()])
        assert made.metrics[-1]["tiny_gradients"] == share


def test_complex_numbers_are_pairs(backend):
    made = start([torch.zeros(3, dtype=torch.complex64)], backend, always_measure=True)
    advance(made, [torch.tensor([1.0, 1e-40j, 1e-39 + 2j], dtype=torch.complex64)])
    assert made.metrics[-1]["tiny_gradients"] == 4 / 6


def test_only_of_groups_that_have_started(backend):
    groups = ({}, {"start_step": 1})
    made = start([torch.zeros(3), torch.zeros(5)], backend, groups=groups, always_measure=True)
    for want in (1 / 3, 6 / 8):
        advance(made, [torch.tensor([0.0, 1.0, 1.0]), torch.zeros(5)])
        assert made.metrics[-1]["tiny_gradients"] == want


def test_none_of_no_element(backend):
    made = start([torch.zeros(0)], backend, always_measure=True)
    assert made.opt.metrics()["tiny_gradients"] is None
    advance(made, [torch.zeros(0)])
    assert made.metrics[-1]["tiny_gradients"] is None


def test_a_refused_step_leaves_the_last_value(backend):
    made = start([torch.zeros(4)], backend, nonfinite="raise")
    advance(made, [torch.tensor([0.0, 1.0, 1.0, 1.0])])
    with pytest.raises(RuntimeError):
        advance(made, [torch.tensor([0.0, 0.0, INF, 1.0])])
    assert made.opt.metrics()["tiny_gradients"] == 0.25
