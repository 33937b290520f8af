"""from_torch against the stepped scheduler: whole runs and past the end, random settings."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr

from lrfused import schedules as S

from . import random_schedulers as random
from .stepping import assert_parity, optimizer, stepped

STEPS = 130
some = settings(max_examples=40)
base_lrs = st.lists(random.rates, min_size=1, max_size=3)
every_strategy = pytest.mark.parametrize(
    "strategy", [*random.FACTORS, *random.COSINES, *random.CYCLES], ids=lambda s: s.__name__
)


def build(make, opt):
    """The scheduler, where torch's own constructor does not divide by zero."""
    try:
        return make(opt)
    except ZeroDivisionError:
        assume(False)


REFUSALS = "T_max is .* and the lr starts at|the factor starts at 0|divides by zero at step 1"


def assert_parity_or_refusal(scheduler, steps):
    """Two kinds of schedulers have no expression when the lr does not start at its base lr.

    And torch up to 2.12 stumbles over some sequences whose second part begins at step 0.
    """
    try:
        assert_parity(scheduler, steps)
    except ValueError as refused:
        assert re.search(REFUSALS, str(refused))


@pytest.mark.parametrize("strategy", [*random.FACTORS, *random.COSINES], ids=lambda s: s.__name__)
@some
@given(data=st.data(), lrs=base_lrs)
def test_schedulers_of_the_lr_convert_exactly(strategy, data, lrs):
    assert_parity(data.draw(strategy())(optimizer(*lrs)), STEPS)


@pytest.mark.parametrize("strategy", random.CYCLES, ids=lambda s: s.__name__)
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
@some
@given(data=st.data(), lrs=base_lrs)
def test_schedulers_of_the_lr_and_the_momentum_convert_exactly(strategy, kind, data, lrs):
    options = {"momentum": 0.5} if kind is torch.optim.SGD else {}
    make = data.draw(strategy(len(lrs)))
    scheduler = build(make, optimizer(*lrs, kind=kind, **options))
    assert_parity(scheduler, STEPS, "lr", "momentum")


@every_strategy
@some
@given(data=st.data(), lrs=base_lrs)
def test_a_first_lr_that_another_scheduler_wrote_is_taken(strategy, data, lrs):
    """The second constructor finds an lr that is not the group's initial_lr."""
    opt = optimizer(*lrs)
    torch_lr.ConstantLR(opt, 0.5, 99)
    assert_parity_or_refusal(build(data.draw(strategy()), opt), STEPS)


@every_strategy
@some
@given(data=st.data(), milestone=st.integers(-2, 9), lrs=base_lrs)
def test_the_second_part_of_a_sequence_converts_exactly(strategy, data, milestone, lrs):
    """It begins from its closed form at the milestone, not from where the first part is.

    At a milestone up to 0 it does what the installed torch does: makes the value of step 0, or
    comes at step 1 and goes on from the first part's.
    """
    opt = optimizer(*lrs)
    parts = [torch_lr.ConstantLR(opt, 0.5, 99), build(data.draw(strategy()), opt)]
    assert_parity_or_refusal(torch_lr.SequentialLR(opt, parts, [milestone]), STEPS)


@some
@given(
    parts=st.lists(random.any_scheduler(), min_size=1, max_size=4),
    lengths=st.lists(st.integers(0, 25), min_size=3, max_size=3),
    lrs=base_lrs,
)
def test_sequences_convert_exactly(parts, lengths, lrs):
    """Phases of no step, phases that end early and phases long past their own end."""
    opt = optimizer(*lrs)
    built = [build(make, opt) for make in parts]
    milestones = np.cumsum(lengths)[: len(parts) - 1].tolist()
    assert_parity_or_refusal(torch_lr.SequentialLR(opt, built, milestones), STEPS)


@some
@given(make=random.any_scheduler(), lrs=base_lrs)
def test_lrs_that_are_tensors_convert_exactly(make, lrs):
    opt = optimizer(*[torch.tensor(lr, dtype=torch.float64) for lr in lrs], foreach=False)
    assert_parity(build(make, opt), STEPS)


@pytest.mark.parametrize("milestone", [0, 5])
def test_a_sequence_of_an_lr_that_is_a_tensor(milestone):
    """Up to torch 2.9 the base lrs are this tensor, which the sequence writes over."""
    opt = optimizer(torch.tensor(0.5, dtype=torch.float64), foreach=False)
    parts = [torch_lr.LinearLR(opt, 0.25), torch_lr.CosineAnnealingLR(opt, 7)]
    scheduler = torch_lr.SequentialLR(opt, parts, [milestone])
    schedule = S.from_torch(scheduler, steps=STEPS)
    (expected,) = stepped(scheduler, STEPS + 1, "lr")
    np.testing.assert_allclose(schedule.values(range(STEPS + 1)), expected[:, 0], 1e-6, 1e-12)


def test_a_float32_lr_drifts_in_torch_only():
    """torch multiplies in float32; the schedule begins at the same number and stays exact."""
    opt = optimizer(torch.tensor(0.1), foreach=False)
    scheduler = torch_lr.ExponentialLR(opt, 0.99)
    schedule = S.from_torch(scheduler)
    first = float(np.float32(0.1))
    expected = first * 0.99 ** np.arange(200.0)
    np.testing.assert_allclose(schedule.values(range(200)), expected, rtol=1e-13)
    (drifted,) = stepped(scheduler, 200, "lr")
    np.testing.assert_allclose(drifted[:, 0], expected, rtol=200 * 2.0**-24)


LONG = {
    "linear": lambda o: torch_lr.LinearLR(o, 1e-3, 0.5, total_iters=19_000),
    "polynomial": lambda o: torch_lr.PolynomialLR(o, 19_000, power=2.0),
    "exponential": lambda o: torch_lr.ExponentialLR(o, 0.9995),
    "cosine": lambda o: torch_lr.CosineAnnealingLR(o, 4_000, eta_min=1e-4),
    "restarts": lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 7, 3, eta_min=1e-6),
    "cyclic": lambda o: torch_lr.CyclicLR(o, 0.0, 1.0, 13, 29, "triangular", cycle_momentum=False),
    "one cycle": lambda o: torch_lr.OneCycleLR(o, 1.0, 19_999, three_phase=True),
}


@pytest.mark.parametrize("name", LONG)
def test_long_runs_stay_with_torchs(name):
    assert_parity(LONG[name](optimizer(0.3)), 20_000)


@pytest.mark.parametrize("factor", [2, 3, 5, 7, 4096])
@pytest.mark.parametrize("first", [1, 10, 1000])
def test_restarts_pick_the_right_cycle_up_to_two_to_the_forty(first, factor):
    schedule = S.from_torch(
        torch_lr.CosineAnnealingWarmRestarts(optimizer(2.0), first, factor, eta_min=1.0)
    )
    assert len(schedule.program.code) <= 100
    begin, length = 0, first
    while begin < 2**40:
        middle = begin + length // 2
        expected = 1.0 + (1 + math.cos(math.pi * (middle - begin) / length)) / 2
        assert schedule(begin) == 2.0
        assert schedule(middle) == pytest.approx(expected, rel=1e-12)
        assert begin == 0 or schedule(begin - 1) < 2.0 or length <= first * factor**2
        begin, length = begin + length, length * factor


def test_a_periodic_cosine_is_exact_at_steps_torch_never_gets_to():
    schedule = S.from_torch(torch_lr.CosineAnnealingLR(optimizer(2.0), 7, eta_min=1.0))
    turns = 14 * (2**40 // 14)
    assert [schedule(turns + t) for t in (0, 7, 14)] == pytest.approx([2.0, 1.0, 2.0], rel=1e-15)


def test_a_constant_lr_of_factor_zero_is_what_its_formula_says():
    """torch divides by the factor when it ends, and raises there."""
    scheduler = torch_lr.ConstantLR(optimizer(2.0), factor=0.0, total_iters=3)
    assert S.from_torch(scheduler).values(range(5)).tolist() == [0.0, 0.0, 0.0, 2.0, 2.0]


@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_one_cycle_holds_its_end_where_torch_raises(anneal):
    opt = optimizer(1.0)
    scheduler = torch_lr.OneCycleLR(opt, 1.0, 10, anneal_strategy=anneal)
    schedule, beta1 = S.from_torch(scheduler), S.from_torch(scheduler, what="momentum")
    assert schedule.values([11, 12, 2**40]).tolist() == [opt.param_groups[0]["min_lr"]] * 3
    assert beta1.values([11, 12, 2**40]).tolist() == [0.95] * 3
    (rows,) = stepped(scheduler, 20, "lr")
    assert len(rows) == 11


def test_one_cycle_holds_its_end_wherever_its_phases_lie():
    """A last phase of no length, and one that the phase before runs past."""
    for options in ({"pct_start": 1.0}, {"pct_start": 0.8, "three_phase": True}):
        opt = optimizer(1.0)
        schedule = S.from_torch(torch_lr.OneCycleLR(opt, 1.0, 10, **options))
        assert np.isfinite(schedule.values(range(20))).all()
        assert schedule.values(range(11, 20)).tolist() == [opt.param_groups[0]["min_lr"]] * 9


def test_groups_that_agree_are_one_schedule_others_a_list():
    same = S.from_torch(torch_lr.StepLR(optimizer(1.0, 1.0), 10))
    assert isinstance(same, S.Schedule)
    two = S.from_torch(torch_lr.StepLR(optimizer(1.0, 0.5), 10))
    assert isinstance(two, list)
    assert [schedule(0) for schedule in two] == [1.0, 0.5]
    cyclic = torch_lr.CyclicLR(optimizer(1.0, 0.5), [0.1, 0.2], 1.0, 5)
    assert isinstance(S.from_torch(cyclic), list)
    assert isinstance(S.from_torch(cyclic, what="momentum"), S.Schedule)
