"""Train, prune by magnitude, rewind, retrain: masks, snapshots and averages together."""

import pytest
import torch
from lib.runs import (
    advance,
    assert_same_bits,
    assert_same_run,
    contents,
    random_problem,
    start,
)

import lrfused
from lrfused import schedules as S

SHAPES = [(65,), (5, 13), ()]


def magnitude_masks(params, share=0.5):
    """The larger half of each parameter."""
    return {p: p.detach().abs() >= p.detach().abs().flatten().quantile(share) for p in params}


def trained(problem, backend, steps=range(3), **options):
    made = start(problem.values, backend, max_grad_norm=0.5, ema_decay=0.6, **options)
    for step in steps:
        advance(made, problem.gradients[step])
    return made


def test_rewinding_applies_the_masks_of_now(backend, rule, rng):
    """What is kept is that of then, what is masked is 0; it goes on as a masked run from there."""
    problem = random_problem(rng, SHAPES, 8, none=0.0)
    made, plain = (trained(problem, backend) for _ in "ab")
    snapshot, then = made.opt.snapshot(), contents(plain)
    for gradients in problem.gradients[3:5]:
        advance(made, gradients)
    masks = magnitude_masks(made.params)
    made.opt.set_masks(masks)
    made.opt.rewind(snapshot)
    for i, mask in enumerate(masks.values()):
        for key in (f"p[{i}]", *(f"{key}[{i}]" for key in (*rule.keys, "lrfused_average"))):
            if key in then:
                want = then[key].masked_fill(~mask, 0)
                assert_same_bits(contents(made)[key], want, key)
    plain.opt.set_masks(dict(zip(plain.params, masks.values(), strict=True)))
    made.metrics, plain.metrics = [], []
    for run in (made, plain):
        for gradients in problem.gradients[5:]:
            advance(run, gradients)
    assert_same_run(made, plain)
    for p, mask in masks.items():
        assert not p.detach()[~mask].any()


def test_the_kept_weights_retrain_with_another_schedule(backend, rng):
    """From an optimizer with another lr: its schedules are those of now."""
    problem = random_problem(rng, SHAPES, 6, none=0.0)
    made = trained(problem, backend, lr=S.linear(0.1, 0.0, 10))
    other = trained(problem, backend, range(0), lr=S.constant(0.025))
    masks = magnitude_masks(made.params)
    other.opt.set_masks(dict(zip(other.params, masks.values(), strict=True)))
    other.opt.rewind(made.opt.snapshot())
    advance(other, problem.gradients[3])
    assert other.opt.metrics()["steps"] == 4
    assert other.opt.metrics()["lr"] == [0.025]
    for p, mask in zip(other.params, masks.values(), strict=True):
        assert not p.detach()[~mask].any()


def test_an_average_that_there_was_not_begins_anew(backend, rng):
    """The first update after rewinding copies."""
    problem = random_problem(rng, SHAPES, 4, none=0.0)
    made = trained(problem, backend, range(0))
    snapshot = made.opt.snapshot()
    for gradients in problem.gradients[:3]:
        advance(made, gradients)
    made.opt.rewind(snapshot)
    advance(made, problem.gradients[3])
    for p in made.params:
        assert_same_bits(made.opt.state[p]["lrfused_average"], p.detach())


def test_averages_in_place_of_weights_are_no_snapshot():
    weight = torch.nn.Parameter(torch.ones(3))
    opt = lrfused.SGD([weight], lr=0.1, ema_decay=0.5)
    snapshot = opt.snapshot()
    with opt.averaged():
        with pytest.raises(RuntimeError, match="averages"):
            opt.snapshot()
        with pytest.raises(RuntimeError, match="averages"):
            opt.rewind(snapshot)
