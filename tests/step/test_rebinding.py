"""What changes in mid-run is bound anew by itself: the bits are those of a new table."""

import pytest
import torch
from lib.changing import CHANGES, SHAPES, bound_from_the_start, late, run_late
from lib.options import LR
from lib.runs import advance, assert_same_run, random_problem, shorter, start

from lrfused import schedules as S

OPTIONS = {
    "plain": {},
    "clip": {"max_grad_norm": 0.5, "lr": LR},
    "everything": {
        "groups": ({"agc": 0.1, "lr": LR}, {"clip_value": S.linear(0.3, 0.1, 9), "ema_decay": 0.5}),
        "max_grad_norm": 0.5,
        "nonfinite": "skip",
    },
}


@pytest.mark.parametrize("chosen", OPTIONS)
def test_first_gradients_that_come_late(rng, backend, rule, chosen):
    problem = late(rng, shorter(backend, 12, least=6))
    want = run_late(problem, "reference", bound_from_the_start, **OPTIONS[chosen])
    assert_same_run(run_late(problem, backend, **OPTIONS[chosen]), want)


@pytest.mark.filterwarnings("ignore:param_groups.* overrides its schedule")
@pytest.mark.parametrize("chosen", OPTIONS)
def test_anything_may_be_replaced_at_any_step(rng, backend, rule, chosen):
    """Several changes before each step, first gradients among them."""
    problem = late(rng, shorter(backend, 24, least=6), [*SHAPES, (65,), (2, 700)])
    number = len(problem.values)
    plan = [
        [(CHANGES[c], i) for c, i in zip(cs, places, strict=True)]
        for cs, places in (
            (rng.numpy.integers(0, len(CHANGES), 3), rng.numpy.integers(0, number, 3))
            for _ in problem.gradients
        )
    ]

    def run(name, before_each=lambda made: None):
        made = start(problem.values, name, **OPTIONS[chosen])
        for gradients, changes in zip(problem.gradients, plan, strict=True):
            for change, i in changes:
                change(made, i)
            before_each(made)
            advance(made, gradients)
        return made

    assert_same_run(run(backend), run("reference", bound_from_the_start))


def with_other_size(made, i, size):
    """Of a parameter of a rule without state, which any size fits."""
    made.params[i].data = torch.ones(size)


@pytest.mark.parametrize("rule", ["sgd"], indirect=True)
def test_a_parameter_may_shrink_within_a_chunk(rng, backend, rule):
    """What was measured of the part that is gone does not count any more."""

    def run(name, before_each=lambda made: None):
        made = start([torch.ones(9000), torch.ones(5)], name, momentum=0.0, max_grad_norm=0.5)
        for size in (9000, 9000, 10, 8500, 3):
            with_other_size(made, 0, size)
            before_each(made)
            advance(made, [torch.full((size,), 0.5), torch.ones(5)])
        return made

    assert_same_run(run(backend), run("reference", bound_from_the_start))


@pytest.mark.parametrize("rule", ["adamw"], indirect=True)
def test_memory_of_replaced_tensors_may_be_used_again(rng, backend, rule):
    """An old moment's memory as a parameter's, and old moments that are freed."""
    problem = random_problem(rng, [(6,)] * 4, 3, none=0.0)
    made = start(problem.values, backend)
    advance(made, problem.gradients[0])
    state = made.opt.state[made.params[0]]
    old = [state[key] for key in ("exp_avg", "exp_avg_sq")]
    for key in ("exp_avg", "exp_avg_sq"):
        state[key] = state[key].clone()
    made.params[1].data = old[0].copy_(made.params[1].detach())
    old[1].untyped_storage().resize_(0)
    advance(made, problem.gradients[1])
    advance(made, problem.gradients[2])
    want = start(problem.values)
    for gradients in problem.gradients:
        advance(want, gradients)
    assert_same_run(made, want)


def test_an_empty_state_of_a_frozen_parameter_stays_empty(rng, backend, rule):
    problem = random_problem(rng, [(6,)] * 3, 4, none=0.0)
    made = start(problem.values, backend)
    for gradients in problem.gradients:
        made.opt.state[made.params[1]] = {}
        advance(made, [gradients[0], None, gradients[2]])
        assert made.opt.state[made.params[1]] == {}
