"""Named schedules against torch.optim.lr_scheduler, within 1e-6, where torch has the same one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from lrfused import schedules as S

rates = st.floats(1e-5, 10.0)
fractions = st.floats(0.01, 1.0)
lengths = st.integers(1, 40)
few = settings(max_examples=40)


def run(scheduler_of, steps, base=1.0, key="lr"):
    """What torch's scheduler sets at steps 0 .. steps - 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base, momentum=0.5)
    scheduler = scheduler_of(optimizer)
    values = []
    for _ in range(steps):
        values.append(float(optimizer.param_groups[0][key]))
        optimizer.step()
        scheduler.step()
    return values


def assert_like_torch(schedule, expected):
    got = schedule.values(range(len(expected)))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-12 * max(expected))


@few
@given(base=rates, first=fractions, last=st.floats(0.0, 1.0), n=lengths)
def test_linear_lr(base, first, last, n):
    expected = run(lambda o: lr_scheduler.LinearLR(o, first, last, total_iters=n), 2 * n + 3, base)
    assert_like_torch(S.linear(base * first, base * last, n), expected)


@few
@given(base=rates, factor=fractions, n=lengths)
def test_constant_lr(base, factor, n):
    expected = run(lambda o: lr_scheduler.ConstantLR(o, factor, total_iters=n), n + 5, base)
    assert_like_torch(S.join([S.constant(base * factor), S.constant(base)], [n]), expected)


@few
@given(base=rates, gamma=st.floats(0.5, 1.1), n=lengths)
def test_exponential_lr(base, gamma, n):
    expected = run(lambda o: lr_scheduler.ExponentialLR(o, gamma), n + 1, base)
    assert_like_torch(S.exponential(base, base * gamma**n, n), expected)
    assert_like_torch(S.step_decay(base, gamma, 1), expected)


@few
@given(base=rates, power=st.floats(0.5, 4.0), n=lengths)
def test_polynomial_lr(base, power, n):
    expected = run(lambda o: lr_scheduler.PolynomialLR(o, n, power), n + 5, base)
    assert_like_torch(S.polynomial(base, 0.0, n, power), expected)


@few
@given(base=rates, gamma=fractions, every=st.integers(1, 9))
def test_step_lr(base, gamma, every):
    expected = run(lambda o: lr_scheduler.StepLR(o, every, gamma), 5 * every, base)
    assert_like_torch(S.step_decay(base, gamma, every), expected)


@few
@given(
    base=rates,
    gamma=fractions,
    milestones=st.sets(st.integers(1, 40), min_size=1, max_size=5).map(sorted),
)
def test_multi_step_lr(base, gamma, milestones):
    expected = run(lambda o: lr_scheduler.MultiStepLR(o, milestones, gamma), 45, base)
    assert_like_torch(S.multi_step(base, gamma, milestones), expected)


@few
@given(base=rates, last=fractions, n=lengths)
def test_cosine_annealing_lr(base, last, n):
    """Up to its end: torch's goes up again after T_max."""
    expected = run(lambda o: lr_scheduler.CosineAnnealingLR(o, n, base * last), n + 1, base)
    assert_like_torch(S.cosine(base, base * last, n), expected)


@few
@given(base=rates, last=fractions, period=st.integers(1, 9), factor=st.integers(1, 2))
def test_cosine_annealing_warm_restarts(base, last, period, factor):
    steps = sum(period * factor**i for i in range(4))
    expected = run(
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, period, factor, base * last),
        steps,
        base,
    )
    assert_like_torch(S.cosine_restarts(base, base * last, period, factor, cycles=4), expected)
    if factor == 1:
        assert_like_torch(S.cosine_restarts(base, base * last, period), expected)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@few
@given(
    low=rates,
    ratio=st.floats(1.0, 20.0),
    up=st.integers(1, 9),
    down=st.integers(1, 9),
    gamma=st.floats(0.8, 1.0),
)
def test_cyclic_lr(mode, low, ratio, up, down, gamma):
    high = low * ratio
    expected = run(
        lambda o: lr_scheduler.CyclicLR(
            o, low, high, up, down, mode=mode, gamma=gamma, cycle_momentum=False
        ),
        5 * (up + down),
    )
    schedule = {
        "triangular": lambda: S.triangular(low, high, up, down),
        "triangular2": lambda: S.triangular2(low, high, up, down),
        "exp_range": lambda: S.exp_range(low, high, gamma, up, down),
    }[mode]()
    assert_like_torch(schedule, expected)


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
@few
@given(
    peak=rates,
    total=st.integers(5, 60),
    rising=st.floats(0.02, 0.95),
    div=st.floats(1.0, 50.0),
    final_div=st.floats(1.0, 1e4),
    low=st.floats(0.1, 0.9),
    extra=st.floats(0.0, 0.09),
)
def test_one_cycle_lr(anneal, three_phase, peak, total, rising, div, final_div, low, extra):
    rising = rising / 2 if three_phase else rising
    rising = max(rising, 1.5 / total)
    high = low + extra

    def one_cycle(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer,
            peak,
            total_steps=total,
            pct_start=rising,
            anneal_strategy=anneal,
            base_momentum=low,
            max_momentum=high,
            div_factor=div,
            final_div_factor=final_div,
            three_phase=three_phase,
        )

    ours = {
        "pct_start": rising,
        "shape": {"cos": "cosine", "linear": "linear"}[anneal],
        "three_phase": three_phase,
    }
    rate = S.one_cycle(peak, total, div_factor=div, final_div_factor=final_div, **ours)
    assert_like_torch(rate, run(one_cycle, total))
    momentum = S.one_cycle_momentum(total, low=low, high=high, **ours)
    assert_like_torch(momentum, run(one_cycle, total, key="momentum"))


@few
@given(base=rates, first=fractions, warm=lengths, decay=lengths, last=fractions)
def test_warmup_then_cosine(base, first, warm, decay, last):
    def formula(t):
        if t < warm:
            return first + (1.0 - first) * t / warm
        x = min((t - warm) / decay, 1.0)
        return last + (1.0 - last) * 0.5 * (1.0 + math.cos(math.pi * x))

    expected = run(lambda o: lr_scheduler.LambdaLR(o, formula), warm + decay + 3, base)
    schedule = S.warmup_cosine(base, warm, warm + decay, base * last, start=base * first)
    assert_like_torch(schedule, expected)
