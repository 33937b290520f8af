"""Gradients are read; only with write_grads=True are they written, with what the update used."""

import pytest
import torch
from lib.runs import (
    DTYPES,
    SMALL,
    advance,
    assert_same_bits,
    assert_same_contents,
    contents,
    random_problem,
    set_gradients,
    start,
)

from lrfused import schedules as S

CLIPS = {
    "none": {},
    "scale": {"loss_scale": 3.0, "accumulation_steps": 5},
    "norm": {"max_grad_norm": 0.1},
    "value": {"clip_value": 0.05},
    "agc": {"agc": 0.01},
    "all": {"loss_scale": 3.0, "max_grad_norm": 0.1, "clip_value": 0.05, "agc": 0.01},
}


def moved(run):
    """Parameters and state."""
    return {k: v for k, v in contents(run).items() if k.startswith(("p[", *run.opt.rule.keys))}


@pytest.mark.parametrize("clip", CLIPS)
def test_never_written_unasked(rng, backend, rule, clip):
    problem = random_problem(rng, SMALL, 6, DTYPES, DTYPES, none=0.0)
    run = start(problem.values, backend, maximize=True, nonfinite="skip", **CLIPS[clip])
    problem.gradients[3][0].fill_(torch.inf)
    for gradients in problem.gradients:
        advance(run, gradients)
        for p, g in zip(run.params, gradients, strict=True):
            if g is not None:
                assert_same_bits(p.grad, g)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clip", CLIPS)
def test_what_is_written_is_what_was_used(rng, backend, rule, clip, dtype, maximize):
    """A plain step with the written gradients does the same, in every bit."""
    problem = random_problem(rng, SMALL, 6, (dtype,))
    plain_options = {"maximize": maximize, **rule.largest, "lr": S.linear(0.01, 0.0, 9)}
    writing = start(problem.values, backend, write_grads=True, **plain_options, **CLIPS[clip])
    plain = start(problem.values, backend, **plain_options)
    for gradients in problem.gradients:
        advance(writing, gradients)
        advance(plain, [p.grad for p in writing.params])
        assert_same_contents(moved(writing), moved(plain))
        if clip == "none":
            for p, g in zip(writing.params, gradients, strict=True):
                assert g is None or torch.equal(p.grad, g)  # not the negative of it


@pytest.mark.parametrize("clip", ["scale", "all"])
def test_written_in_the_gradients_own_dtype(rng, backend, rule, clip):
    """The value of the compute type, rounded once: that of a float64 run is near it."""
    problem = random_problem(rng, [(5, 13), (65,)], 1, (torch.float32,))
    exact = start(problem.values, backend, write_grads=True, **CLIPS[clip])
    advance(exact, problem.gradients[0])
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        low = problem.map_gradients(lambda g, dtype=dtype: g.to(dtype))
        high = low.map_gradients(lambda g: g.float())
        wrote, wanted = (
            start(problem.values, backend, write_grads=True, **CLIPS[clip]) for _ in range(2)
        )
        advance(wrote, low.gradients[0])
        advance(wanted, high.gradients[0])
        for got, want in zip(wrote.params, wanted.params, strict=True):
            assert_same_bits(got.grad, want.grad.to(dtype))


def test_a_skipped_step_writes_nothing(rng, backend, rule):
    problem = random_problem(rng, SMALL, 1)
    problem.gradients[0][2].fill_(torch.inf)
    run = start(problem.values, backend, write_grads=True, loss_scale=4.0)
    advance(run, problem.gradients[0])
    for p, g in zip(run.params, problem.gradients[0], strict=True):
        assert_same_bits(p.grad, g)


def test_an_inactive_group_is_not_written(rng, backend, rule):
    problem = random_problem(rng, [(5,), (7,)], 1)
    groups = ({}, {"start_step": 1})
    run = start(problem.values, backend, groups=groups, write_grads=True, accumulation_steps=2)
    advance(run, problem.gradients[0])
    assert_same_bits(run.params[0].grad, problem.gradients[0][0] / 2)
    assert_same_bits(run.params[1].grad, problem.gradients[0][1])


def test_a_gradient_that_cannot_be_written_is_refused_before_anything_moves(rng, backend, rule):
    """An expanded gradient: many elements, one place in memory."""
    problem = random_problem(rng, [(3, 4), (5,)], 2)
    run = start(problem.values, backend, write_grads=True)
    advance(run, problem.gradients[0])
    set_gradients(run.params, problem.gradients[1])
    run.params[0].grad = torch.ones(1).expand(3, 4)
    before = contents(run)
    with pytest.raises((RuntimeError, ValueError), match="grad"):
        run.opt.step()
    assert_same_contents(contents(run), before)
    assert run.opt.metrics()["steps"] == 1


@pytest.mark.parametrize("bit", ["conjugate", "negative"])
def test_a_lazily_conjugated_or_negated_gradient_is_written(rng, backend, bit):
    lazy = {"conjugate": lambda x: x.conj(), "negative": lambda x: x.conj().imag}[bit]
    x = torch.randn(7, generator=rng.torch, dtype=torch.complex64)
    p = torch.zeros_like(lazy(x).resolve_neg().resolve_conj())
    run = start([p], backend, write_grads=True, accumulation_steps=2)
    run.params[0].grad = lazy(x.clone())
    run.opt.step()
    assert torch.equal(run.params[0].grad, lazy(x) / 2)
