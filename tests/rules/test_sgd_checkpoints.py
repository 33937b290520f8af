"""SGD's and Lion's checkpoints: to torch and back, set_step, the states of other optimizers."""

import copy

import pytest
import torch

import lrfused
from lrfused import schedules as S

from .sgd_runs import give_gradients, parameters, step


def trained(rng, make, steps=4, **options):
    params, _ = parameters(rng, torch.float64)
    opt = make(params, lr=0.1, **options)
    for _ in range(steps):
        give_gradients(rng, params)
        opt.step()
    return params, opt


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5}])
@pytest.mark.parametrize("to_torch", [False, True])
def test_checkpoints_go_both_ways(rng, options, to_torch):
    first, second = (lrfused.SGD, torch.optim.SGD) if to_torch else (torch.optim.SGD, lrfused.SGD)
    params, opt = trained(rng, first, **options)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = second(copies, lr=0.1, **options)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    for _ in range(4):
        give_gradients(rng, params, copies)
        opt.step()
        other.step()
    for p, q in zip(params, copies, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("before", [False, True])
def test_set_step_places_the_schedule(rng, recwarn, before):
    _, theirs = trained(rng, torch.optim.SGD, momentum=0.9)
    params, _ = parameters(rng, torch.float64)
    opt = lrfused.SGD(params, lr=S.linear(0.5, 0.0, 10), momentum=0.9)
    if before:
        opt.set_step(4)
    opt.load_state_dict(theirs.state_dict())
    warnings = [str(w.message) for w in recwarn]
    assert len(warnings) == (not before)
    assert all("how many steps were completed" in text and "set_step" in text for text in warnings)
    if not before:
        opt.set_step(4)
    assert opt.metrics()["steps"] == 4
    assert opt.param_groups[0]["lr"] == S.linear(0.5, 0.0, 10)(4)
    give_gradients(rng, params)
    opt.step()
    assert opt.metrics()["lr"] == [S.linear(0.5, 0.0, 10)(4)] and opt.metrics()["steps"] == 5


@pytest.mark.parametrize("lr", [0.5, S.constant(0.5)], ids=str)
def test_constant_hyperparameters_need_no_step(rng, recwarn, lr):
    _, theirs = trained(rng, torch.optim.SGD, momentum=0.9)
    params, _ = parameters(rng, torch.float64)
    opt = lrfused.SGD(params, lr=lr, momentum=0.9)
    opt.load_state_dict(theirs.state_dict())
    assert not recwarn.list


def test_our_checkpoint_says_the_step(rng, recwarn):
    lr = S.linear(0.5, 0.0, 10)
    params, _ = parameters(rng, torch.float64)
    opt = lrfused.SGD(params, lr=lr, momentum=0.9)
    for _ in range(3):
        give_gradients(rng, params)
        opt.step()
    other = lrfused.SGD(
        [torch.nn.Parameter(p.detach().clone()) for p in params], lr=lr, momentum=0.9
    )
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert other.metrics()["steps"] == 3 and other.param_groups[0]["lr"] == lr(3)
    assert not recwarn.list


def test_whether_the_buffer_was_written_travels(rng):
    """A step was skipped, so that the buffer is there and empty: the next gradient is the first."""
    weight = torch.nn.Parameter(torch.zeros(2))
    options = {"lr": 1.0, "momentum": 0.5, "dampening": 0.75, "nonfinite": "skip"}
    opt = lrfused.SGD([weight], **options)
    weight.grad = torch.full((2,), float("nan"))
    opt.step()
    other = lrfused.SGD([torch.nn.Parameter(torch.zeros(2))], **options)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    for o in (opt, other):
        p = o.param_groups[0]["params"][0]
        for buffer in (1.0, 0.5 + 0.25):
            p.grad = torch.ones(2)
            o.step()
            assert o.state[p]["momentum_buffer"].tolist() == [buffer] * 2


@pytest.mark.parametrize("step", [-1, 2.5, True, "3", 2**60])
def test_set_step_refuses_what_is_no_count(step):
    opt = lrfused.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises((TypeError, ValueError), match="step: must be"):
        opt.set_step(step)
    assert opt.metrics()["steps"] == 0


def test_a_checkpoint_of_another_optimizer_is_refused(rng):
    params, _ = parameters(rng, torch.float64)
    saved = lrfused.AdamW(params).state_dict()
    with pytest.raises(ValueError, match="saved by the optimizer 'adamw', this one is 'sgd'"):
        lrfused.SGD(params, lr=0.1).load_state_dict(saved)


# set_step


def test_steps_after_set_step_are_no_word_for_the_next_load(recwarn):
    weight = torch.nn.Parameter(torch.ones(2))
    theirs = torch.optim.SGD([weight], lr=0.1)
    opt = lrfused.SGD([weight], lr=S.linear(0.5, 0.1, steps=100))
    opt.set_step(10)
    step(opt, weight)
    opt.load_state_dict(theirs.state_dict())
    assert ["set_step" in str(w.message) for w in recwarn] == [True]


def test_set_step_before_a_load_is_the_last_word():
    """torch went on with our checkpoint, whose own step it cannot raise."""
    lr = S.linear(0.5, 0.1, steps=100)
    weight = torch.nn.Parameter(torch.ones(2))
    opt = lrfused.SGD([weight], lr=lr, momentum=0.5)
    for _ in range(5):
        step(opt, weight)
    theirs = torch.optim.SGD([weight], lr=0.1, momentum=0.5)
    theirs.load_state_dict(copy.deepcopy(opt.state_dict()))
    for _ in range(30):
        step(theirs, weight)
    opt.set_step(35)
    opt.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert opt.metrics()["steps"] == 35 and opt.param_groups[0]["lr"] == lr(35)


def test_set_step_shows_a_schedule_that_was_written():
    weight = torch.nn.Parameter(torch.ones(2))
    opt = lrfused.SGD([weight], lr=0.1)
    opt.param_groups[0]["lr"] = S.linear(0.5, 0.0, steps=10)
    opt.set_step(5)
    assert opt.param_groups[0]["lr"] == 0.25


# Other optimizers' states


@pytest.mark.parametrize("make", [lrfused.SGD, lrfused.Lion])
def test_the_state_of_another_optimizer_is_refused(make):
    weight = torch.nn.Parameter(torch.ones(2))
    theirs = torch.optim.AdamW([weight])
    step(theirs, weight)
    opt = make([weight], lr=0.1)
    with pytest.raises(ValueError, match=r"exp_avg_sq.*it is that of another optimizer"):
        opt.load_state_dict(theirs.state_dict())
    assert weight not in opt.state


def test_a_step_that_stands_in_a_state_without_counts_says_nothing():
    weight, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    opt = lrfused.Lion([weight], lr=S.linear(0.5, 0.1, steps=100))
    step(opt, weight)
    opt.add_param_group({"params": [other]})
    opt.state[other] = {"exp_avg": torch.zeros(2), "step": torch.tensor(500.0)}
    step(opt, weight, other)
    assert opt.metrics()["steps"] == 2
