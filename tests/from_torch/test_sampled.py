"""Schedulers without an expression: sampled from a copy, exactly, the original left alone."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr

from lrfused import schedules as S

from . import random_schedulers as random
from .stepping import in_groups, one_a_group, optimizer, stepped

STEPS = 60


def chained(opt):
    return torch_lr.ChainedScheduler(
        [torch_lr.LinearLR(opt, 0.1, total_iters=7), torch_lr.ExponentialLR(opt, 0.9)]
    )


def sequence_of_a_chain(opt):
    opt._opt_called = True  # torch's own constructor would warn that it was not
    parts = [chained(opt), torch_lr.StepLR(opt, 10)]
    return torch_lr.SequentialLR(opt, parts, [15])


def sequence_of_a_sequence(opt):
    opt._opt_called = True
    inner = torch_lr.SequentialLR(
        opt, [torch_lr.LinearLR(opt, 0.1), torch_lr.PolynomialLR(opt, 20)], [5]
    )
    return torch_lr.SequentialLR(opt, [inner, torch_lr.ExponentialLR(opt, 0.9)], [30])


def sequence_with_a_fraction(opt):
    parts = [torch_lr.LinearLR(opt, 0.1), torch_lr.ExponentialLR(opt, 0.9)]
    return torch_lr.SequentialLR(opt, parts, [7.5])


def sequence_of_one_scheduler_twice(opt):
    part = torch_lr.CosineAnnealingWarmRestarts(opt, 7)
    return torch_lr.SequentialLR(opt, [part, torch_lr.ConstantLR(opt, 0.5), part], [10, 20])


def sequence_of_a_lambda(opt):
    parts = [torch_lr.LinearLR(opt, 0.1), torch_lr.LambdaLR(opt, lambda t: 0.9**t)]
    return torch_lr.SequentialLR(opt, parts, [5])


def long_list_of_milestones(opt):
    return torch_lr.MultiStepLR(opt, range(1, 400, 2), gamma=0.99)


def scaled_cycle(opt):
    return torch_lr.CyclicLR(opt, 0.1, 1.0, 6, scale_fn=lambda x: 1 / (1 + x), scale_mode="cycle")


def fractional_steps(opt):
    return torch_lr.StepLR(opt, step_size=2.5)


def lambdas(opt):
    return torch_lr.LambdaLR(opt, [lambda t: 1 / (1 + t), lambda t: 0.9**t])


def multiplied(opt):
    return torch_lr.MultiplicativeLR(opt, lambda t: 1 - 1 / (t + 2))


ALL = [
    *(chained, sequence_of_a_chain, sequence_of_a_sequence, sequence_with_a_fraction),
    *(sequence_of_one_scheduler_twice, sequence_of_a_lambda, long_list_of_milestones),
    *(scaled_cycle, fractional_steps, lambdas, multiplied),
]
every_one = pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)


def assert_sampled(scheduler, *, what="lr", steps=STEPS):
    __tracebackhide__ = True
    groups = len(scheduler.optimizer.param_groups)
    schedules = one_a_group(S.from_torch(scheduler, steps, what=what), groups)
    (expected,) = stepped(scheduler, steps + 1, what)
    assert len(expected) == steps + 1
    for schedule, column in zip(schedules, expected.T, strict=True):
        assert schedule.values(range(steps + 1)).tolist() == column.tolist()
        assert schedule(10 * steps) == column[-1]


@every_one
def test_samples_are_what_torch_sets(make):
    assert_sampled(make(optimizer(0.5, 0.25)))


@every_one
def test_steps_must_be_given(make):
    with pytest.raises(ValueError, match="steps: must be given"):
        S.from_torch(make(optimizer(0.5, 0.25)))


@every_one
def test_scheduler_and_optimizer_are_left_alone(make):
    scheduler = make(optimizer(torch.tensor(0.5), torch.tensor(0.25), foreach=False))
    opt = scheduler.optimizer
    state, lrs = copy.deepcopy(scheduler.state_dict()), in_groups(opt)
    groups = [dict(group) for group in opt.param_groups]
    S.from_torch(scheduler, STEPS)
    assert str(scheduler.state_dict()) == str(state)
    for group, before in zip(opt.param_groups, groups, strict=True):
        assert list(group) == list(before)
        assert all(group[key] is before[key] for key in group)  # the lr is the same tensor
    assert in_groups(opt) == lrs and not opt.state


@settings(max_examples=30)
@given(
    parts=st.lists(st.one_of([make() for make in random.FACTORS]), min_size=1, max_size=3),
    lrs=st.lists(random.rates, min_size=1, max_size=3),
)
def test_random_chains_are_sampled_exactly(parts, lrs):
    opt = optimizer(*lrs)
    assert_sampled(torch_lr.ChainedScheduler([make(opt) for make in parts]))


class Counting:
    """A factor with a state of its own, which holds on to a parameter."""

    def __init__(self, parameter):
        self.calls, self.parameter, self.address = 0, parameter, parameter.data_ptr()

    def __call__(self, step):
        assert self.parameter.data_ptr() == self.address
        self.calls += 1
        return 1 / self.calls


def test_functions_with_a_state_are_copied_but_parameters_are_not():
    opt = optimizer(1.0)
    factor = Counting(opt.param_groups[0]["params"][0])
    schedule = S.from_torch(torch_lr.LambdaLR(opt, factor), steps=10)
    assert schedule.values(range(11)).tolist() == [1 / (1 + t) for t in range(11)]
    assert factor.calls == 1


def test_the_momentum_of_a_sequence_is_sampled():
    for kind, options in ((torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.5})):
        opt = optimizer(1.0, 0.5, kind=kind, **options)
        parts = [torch_lr.LinearLR(opt, 0.1), torch_lr.OneCycleLR(opt, [1.0, 0.5], 40)]
        scheduler = torch_lr.SequentialLR(opt, parts, [5])
        with pytest.raises(ValueError, match="steps: must be given"):
            S.from_torch(scheduler, what="momentum")
        assert_sampled(scheduler, what="momentum", steps=45)


def test_steps_do_not_matter_where_nothing_is_sampled():
    scheduler = torch_lr.CosineAnnealingLR(optimizer(1.0), 10)
    assert S.from_torch(scheduler, steps=3) == S.from_torch(scheduler)


def test_steps_zero_is_a_constant():
    schedule = S.from_torch(lambdas(optimizer(1.0, 1.0)), steps=0)
    assert np.array_equal(schedule.values([0, 1, 100]), [1.0, 1.0, 1.0])
