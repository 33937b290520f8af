"""What rides along on a GPU: under a captured graph, beside other streams' work, in its memory."""

import copy

import pytest
import torch
from lib.options import LR, two_of_three
from lib.runs import SMALL, assert_same_bits, random_problem

from .helpers import assert_same_end, captured, fill, on, start_on

pytestmark = pytest.mark.gpu

WARM_UP = 3
RIDERS = {"lr": LR, "max_grad_norm": 0.5, "ema_decay": 0.9, "ema_update_every": 2}


def other_mask(p):
    """Another one than two_of_three."""
    return ~two_of_three(p)


def set_masks(made, mask):
    made.opt.set_masks({p: mask(p) for p in made.params})


def test_replays_average_and_follow_masks_that_change_in_place(rng, target, rule):
    """Captured with one mask, replayed with another, with none, with the first again."""
    problem = on(target.device, random_problem(rng, SMALL, WARM_UP + 12, none=0.0))
    got, want = (start_on(target, problem.values, masks=two_of_three, **RIDERS) for _ in "ab")
    changes = {6: other_mask, 9: lambda _: None, 12: two_of_three}
    replay = None
    for step, gradients in enumerate(problem.gradients):
        if step in changes:
            set_masks(got, changes[step])
            set_masks(want, changes[step])
        fill(got, gradients)
        fill(want, gradients)
        if step == WARM_UP:
            replay = captured(got.opt.step, target.device)
        want.opt.step()
        (replay or got.opt.step)()
    assert_same_end(got, want)


def test_replays_zero_the_gradients(rng, target):
    problem = on(target.device, random_problem(rng, SMALL, WARM_UP + 4, none=0.0))
    made = start_on(target, problem.values, zero_grads=True, nonfinite="skip", lr=LR)
    replay = None
    for step, gradients in enumerate(problem.gradients):
        if step == WARM_UP:
            replay = captured(made.opt.step, target.device)
        fill(made, gradients)
        if step == WARM_UP + 2:
            made.params[-1].grad.view(-1)[0] = torch.inf
        (replay or made.opt.step)()
        for p in made.params:
            assert_same_bits(p.grad, torch.zeros_like(p))
    assert made.opt.metrics()["skipped_steps"] == 1


def test_averages_in_place_of_the_weights(rng, target):
    """Inside, the graph's memory has the averages; afterwards replays go on as if nothing was."""
    problem = on(target.device, random_problem(rng, SMALL, WARM_UP + 4, none=0.0))
    got, want = (start_on(target, problem.values, **RIDERS) for _ in "ab")
    replay = None
    for step, gradients in enumerate(problem.gradients):
        for made in (got, want):
            fill(made, gradients)
        if step == WARM_UP:
            replay = captured(got.opt.step, target.device)
        want.opt.step()
        (replay or got.opt.step)()
        with got.opt.averaged():
            for p in got.params:
                assert_same_bits(p.detach(), got.opt.state[p]["lrfused_average"])
    assert_same_end(got, want)


def test_a_copy_of_the_optimizer_has_masks_of_its_own(rng, target):
    problem = on(target.device, random_problem(rng, SMALL, 2, none=0.0))
    made = start_on(target, problem.values, masks=two_of_three, **RIDERS)
    params, opt = copy.deepcopy((made.params, made.opt))
    opt.set_masks({p: other_mask(p) for p in params})
    fill(made, problem.gradients[0])
    made.opt.step()
    for p, mask in made.opt.masks.items():
        assert_same_bits(mask, two_of_three(p))
        assert not p.detach()[~mask].any()
