"""Schedules of one phase against plain formulas, at every step of random settings."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lib.schedule_values import assert_follows, assert_same_bits

from lrfused import schedules as S

values = st.floats(1e-8, 100.0) | st.just(0.0) | st.just(1e-3)
positives = st.floats(1e-8, 100.0)
lengths = st.integers(1, 60)
FAR = [10**6 + 1, 2**40, 2**53]


def around(length):
    return [*range(length + 4), *FAR]


def held(schedule, end, length):
    """The last value is exactly ``end``, from step ``length`` on."""
    assert_same_bits(schedule.values([length, length + 1, *FAR]), [end] * 5)


@given(value=values)
def test_constant(value):
    assert_same_bits(S.constant(value).values(around(3)), [value] * len(around(3)))


@given(start=values, end=values, n=lengths)
def test_linear(start, end, n):
    def formula(t):
        return start + (end - start) * t / n if t < n else end

    schedule = S.linear(start, end, n)
    assert_follows(schedule, formula, around(n), scale=max(start, end))
    assert schedule(0) == start
    held(schedule, end, n)


@given(start=values, end=values, n=lengths)
def test_cosine(start, end, n):
    def formula(t):
        return end + (start - end) * (1.0 + math.cos(math.pi * t / n)) / 2.0 if t < n else end

    schedule = S.cosine(start, end, n)
    assert_follows(schedule, formula, around(n), scale=max(start, end))
    assert schedule(0) == start
    held(schedule, end, n)


@given(start=positives, n=st.integers(1000, 50000), before=st.integers(1, 3))
def test_cosine_to_zero_stays_accurate_at_its_very_end(start, n, before):
    """Relative to the small value itself, where (1 + cos) / 2 would have lost half its digits."""
    want = start * math.sin(math.pi / 2 * before / n) ** 2
    assert S.cosine(start, 0.0, n)(n - before) == pytest.approx(want, rel=1e-15 * n, abs=0.0)


@given(start=positives, end=positives, n=lengths)
def test_exponential(start, end, n):
    def formula(t):
        return start * (end / start) ** (t / n) if t < n else end

    schedule = S.exponential(start, end, n)
    assert_follows(schedule, formula, around(n), scale=0.0)
    assert schedule(0) == start
    held(schedule, end, n)


@given(start=values, end=values, n=lengths, power=st.floats(0.1, 5.0) | st.integers(1, 4))
def test_polynomial(start, end, n, power):
    def formula(t):
        return end + (start - end) * ((n - t) / n) ** power if t < n else end

    schedule = S.polynomial(start, end, n, power)
    assert_follows(schedule, formula, around(n), scale=max(start, end))
    assert schedule(0) == start
    held(schedule, end, n)


@given(start=values, end=values, n=lengths)
def test_polynomial_of_power_1_is_linear(start, end, n):
    straight = S.linear(start, end, n)
    assert_follows(S.polynomial(start, end, n), straight, around(n), scale=max(start, end))


@given(start=positives, end=positives, n=st.integers(2, 60))
@pytest.mark.parametrize("make", [S.linear, S.cosine, S.exponential, S.polynomial])
def test_ramps_go_one_way_between_their_ends(make, start, end, n):
    path = make(start, end, n).values(range(n + 3))
    path = path if start <= end else path[::-1]
    slack = 1e-14 * max(start, end)
    assert all(a <= b + slack for a, b in pairwise(path))
    assert abs(min(path) - min(start, end)) <= slack
    assert abs(max(path) - max(start, end)) <= slack


@given(peak=values, n=lengths)
def test_inverse_sqrt(peak, n):
    def formula(t):
        return peak * (t + 1) / n if t + 1 <= n else peak * math.sqrt(n / (t + 1))

    schedule = S.inverse_sqrt(peak, n)
    assert_follows(schedule, formula, around(3 * n), scale=0.0)
    assert schedule(n - 1) == peak


@given(width=st.integers(1, 5000), n=lengths, factor=values)
def test_noam(width, n, factor):
    def formula(t):
        return factor * width**-0.5 * min((t + 1) ** -0.5, (t + 1) * n**-1.5)

    assert_follows(S.noam(width, n, factor), formula, around(3 * n), scale=0.0)


@given(peak=values, n=lengths)
def test_rex(peak, n):
    def formula(t):
        left = max(n - t, 0) / n
        return peak * left / (0.5 + 0.5 * left)

    schedule = S.rex(peak, n)
    assert_follows(schedule, formula, around(2 * n), scale=0.0)
    assert schedule(0) == peak and schedule(n) == 0.0


@given(value=values, factor=st.floats(0.01, 2.0) | st.just(0.0), every=lengths)
def test_step_decay(value, factor, every):
    def formula(t):
        return value * factor ** (t // every)

    schedule = S.step_decay(value, factor, every)
    assert_follows(schedule, formula, range(5 * every + 2), scale=0.0)
    assert schedule(0) == schedule(every - 1) == value


@given(every=st.integers(1, 2**40), k=st.integers(1, 1000))
def test_step_decay_drops_at_the_very_step(every, k):
    decay = S.step_decay(1.0, 0.5, every)
    assert decay(k * every) == 0.5**k
    assert decay(k * every - 1) == 0.5 ** (k - 1)


@given(
    value=values,
    factor=st.floats(0.01, 2.0) | st.just(0.0),
    milestones=st.sets(st.integers(1, 80), min_size=1, max_size=9).map(sorted),
)
def test_multi_step(value, factor, milestones):
    def formula(t):
        return value * factor ** sum(m <= t for m in milestones)

    schedule = S.multi_step(value, factor, milestones)
    assert_follows(schedule, formula, around(milestones[-1]), scale=0.0)
    assert schedule(milestones[0] - 1) == value


@given(n=st.integers(2**30, 2**40))
@pytest.mark.parametrize("make", [S.linear, S.cosine, S.exponential, S.polynomial])
def test_very_long_ramps_end_at_the_very_step(make, n):
    ramp = make(1.0, 0.5, n)
    assert ramp(0) == 1.0
    assert 0.5 <= ramp(n - 1) <= 0.5 + 2.0 / n
    assert ramp(n // 2) == pytest.approx(S.linear(1.0, 0.5, n)(n // 2), rel=0.1)
    assert_same_bits(ramp.values([n, n + 1, 2 * n, 2**53]), [0.5] * 4)
