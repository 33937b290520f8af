"""Schedules that come back, against plain formulas at every step of random settings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lib.schedule_values import assert_follows, assert_same_bits

from lrfused import schedules as S

lows = st.floats(1e-8, 10.0) | st.just(0.0)
extras = st.floats(1e-8, 100.0) | st.just(0.0)
lengths = st.integers(1, 12)


def wave(up, down, t):
    """(height, index of the cycle), with whole numbers only until the last division."""
    cycle, x = divmod(t, up + down)
    return (x / up if x < up else (up + down - x) / down), cycle


@pytest.mark.parametrize("same_way_down", [False, True])
@given(low=lows, extra=extras, up=lengths, down=lengths)
def test_triangular(same_way_down, low, extra, up, down):
    def formula(t):
        return low + (high - low) * wave(up, down, t)[0]

    high = low + extra
    down = up if same_way_down else down
    schedule = S.triangular(low, high, up, *([] if same_way_down else [down]))
    assert_follows(schedule, formula, range(4 * (up + down)), scale=high)
    ends = [0, up + down, 10**6 * (up + down)]
    assert_same_bits(schedule.values(ends), [low] * 3)
    assert_same_bits(schedule.values([t + up for t in ends]), [high] * 3)


@given(low=lows, extra=extras, up=lengths, down=lengths)
def test_triangular2(low, extra, up, down):
    def formula(t):
        height, cycle = wave(up, down, t)
        return low + (high - low) * height / 2.0**cycle

    high = low + extra
    schedule = S.triangular2(low, high, up, down)
    assert_follows(schedule, formula, range(6 * (up + down)), scale=high)
    assert schedule(0) == low
    assert schedule(up) == high


@given(low=lows, extra=extras, up=lengths, down=lengths, gamma=st.floats(0.1, 1.0))
def test_exp_range(low, extra, up, down, gamma):
    def formula(t):
        return low + (high - low) * wave(up, down, t)[0] * gamma**t

    high = low + extra
    schedule = S.exp_range(low, high, gamma, up, down)
    assert_follows(schedule, formula, range(4 * (up + down)), scale=high)
    assert schedule(0) == low


def test_a_gamma_of_1_is_the_plain_wave():
    plain, ranged = S.triangular(0.25, 1.0, 5, 3), S.exp_range(0.25, 1.0, 1.0, 5, 3)
    assert_same_bits(ranged.values(range(50)), plain.values(range(50)))


@given(up=st.integers(1, 2**20), down=st.integers(1, 2**20), t=st.integers(0, 2**40))
def test_waves_keep_their_phase_for_ever(up, down, t):
    want = wave(up, down, t)[0]
    assert S.triangular(0.0, 1.0, up, down)(t) == pytest.approx(want, rel=1e-15, abs=1e-300)


# Restarts


def restarts_formula(start, end, period, factor, cycles):
    def formula(t):
        began, length, index = 0, period, 0
        while t >= began + length:
            began, length, index = began + length, length * factor, index + 1
            if cycles is not None and index >= cycles:
                return end
        x = (t - began) / length
        return end + (start - end) * (1.0 + math.cos(math.pi * x)) / 2.0

    return formula


values = st.floats(1e-8, 10.0) | st.just(0.0)


@given(start=values, end=values, period=lengths, factor=st.integers(1, 4), cycles=st.integers(1, 5))
def test_cosine_restarts(start, end, period, factor, cycles):
    schedule = S.cosine_restarts(start, end, period, factor, cycles)
    formula = restarts_formula(start, end, period, factor, cycles)
    finish = sum(period * factor**i for i in range(cycles))
    assert_follows(schedule, formula, range(finish + 5), scale=max(start, end))
    assert_same_bits(schedule.values([finish, finish + 1, 2**40, 2**53]), [end] * 4)


@given(start=values, end=values, period=lengths)
def test_restarts_without_end(start, end, period):
    schedule = S.cosine_restarts(start, end, period)
    formula = restarts_formula(start, end, period, 1, None)
    assert_follows(schedule, formula, range(6 * period + 5), scale=max(start, end))
    assert_same_bits(schedule.values([0, period, 10**9 * period]), [start] * 3)


@pytest.mark.parametrize(
    ("period", "factor", "cycles"), [(1, 2, 50), (1, 3, 33), (7, 2, 40), (13, 3, 20), (10, 10, 14)]
)
def test_every_restart_is_at_the_very_step(period, factor, cycles):
    """The start value exactly at each restart, nearly the end value at the step before."""
    schedule = S.cosine_restarts(1.0, 0.0, period, factor, cycles)
    began = 0
    for i in range(cycles):
        length = period * factor**i
        assert schedule(began) == 1.0
        want = math.sin(math.pi / 2 / length) ** 2
        assert schedule(began + length - 1) == pytest.approx(want, rel=1e-9, abs=2e-15 / length)
        began += length
    assert_same_bits(schedule(began), 0.0)
