"""Schedules of several phases against plain formulas, at every step of random settings."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.random_schedules import schedules, steps
from lib.schedule_values import assert_follows, assert_same_bits

from lrfused import schedules as S

values = st.floats(1e-8, 100.0) | st.just(0.0)
positives = st.floats(1e-6, 100.0)
lengths = st.integers(1, 40)
lengths_or_none = st.integers(0, 40)
FAR = [10**6 + 1, 2**40, 2**53]

# The plain shapes: from 0 at x = 0 to 1 at x = 1 (the exponential depends on its ends).
BENDS = {
    "linear": lambda x: x,
    "cosine": lambda x: (1.0 - math.cos(math.pi * x)) / 2.0,
    "sqrt": math.sqrt,
}


def blend(shape, start, end, x, power=1.0):
    if shape == "exponential":
        return start * (end / start) ** x
    bent = x**power if shape == "polynomial" else BENDS[shape](x)
    return start + (end - start) * bent


def rise(first, peak, n, t, shape="linear", power=1.0):
    """The warmup of n steps, at t < n; ``first`` None stands for the start "1/n"."""
    if first is None:
        return blend(shape, peak / n, peak, t / (n - 1), power) if n > 1 else peak
    return blend(shape, first, peak, t / n, power)


starts = values | st.none()  # None: "1/n"


def as_start(first):
    return "1/n" if first is None else first


def around(length):
    return [*range(length + 4), *FAR]


# warmup


@pytest.mark.parametrize("shape", ["linear", "cosine", "exponential", "polynomial"])
@settings(max_examples=60)
@given(
    first=positives | st.none(),
    peak=positives,
    end=positives,
    n=lengths_or_none,
    decay=lengths,
    power=st.floats(0.2, 4.0),
)
def test_warmup(shape, first, peak, end, n, decay, power):
    def formula(t):
        if t < n:
            return rise(first, peak, n, t, shape, power)
        t -= n
        return peak + (end - peak) * t / decay if t < decay else end

    after = S.linear(peak, end, decay)
    schedule = S.warmup(after, n, start=as_start(first), shape=shape, power=power)
    assert_follows(schedule, formula, around(n + decay), scale=max(first or 0.0, peak, end))
    assert_same_bits(schedule.values(range(n, n + decay + 3)), after.values(range(decay + 3)))


@pytest.mark.parametrize("shape", ["linear", "cosine", "exponential", "polynomial"])
@given(peak=positives, first=positives, n=lengths)
def test_warmup_starts_and_peaks_exactly(shape, peak, first, n):
    flat = S.constant(peak)
    from_value = S.warmup(flat, n, start=first, shape=shape)
    assert from_value(0) == first
    assert_same_bits(from_value.values([n, n + 1, *FAR]), [peak] * 5)
    from_part = S.warmup(flat, n, start="1/n", shape=shape)
    assert from_part(0) == pytest.approx(peak / n, rel=1e-15, abs=0.0)
    assert_same_bits(from_part.values([n - 1, n, n + 1, *FAR]), [peak] * 6)


@pytest.mark.parametrize("shape", ["linear", "cosine", "polynomial"])
@given(peak=positives, n=lengths)
def test_warmup_may_start_at_zero(shape, peak, n):
    schedule = S.warmup(S.constant(peak), n, start=0.0, shape=shape)
    assert_same_bits(schedule(0), 0.0)
    path = schedule.values(range(n + 1))
    assert all(a < b for a, b in pairwise(path))


@pytest.mark.parametrize("start", [0.25, 0.0, "1/n"])
def test_warmup_of_no_steps_is_the_schedule_itself(start):
    after = S.cosine(1.0, 0.5, 7)
    assert S.warmup(after, 0, start=start) == after


def test_warmup_of_one_step():
    after = S.linear(1.0, 0.0, 4)
    assert S.warmup(after, 1, start=0.25).values(range(3)).tolist() == [0.25, 1.0, 0.75]
    for shape in ("linear", "cosine", "exponential", "polynomial"):
        warmed = S.warmup(after, 1, start="1/n", shape=shape)
        assert warmed.values(range(3)).tolist() == [1.0, 1.0, 0.75]


def test_warmup_of_one_part_counts_in_whole_parts():
    warmed = S.warmup(S.constant(3.0), 8, start="1/n")
    assert warmed.values(range(9)).tolist() == [3.0 * k / 8 for k in (1, 2, 3, 4, 5, 6, 7, 8, 8)]


@settings(max_examples=50)
@given(after=schedules(), n=st.integers(1, 30), at=st.lists(steps, min_size=1))
def test_warmup_leaves_any_schedule_on_its_own_clock(after, n, at):
    schedule = S.warmup(after, n, start=0.5)
    assert_same_bits(schedule.values([t + n for t in at]), after.values(at))


@given(first=starts, peak=values, end=values, warm=lengths_or_none, decay=lengths)
def test_warmup_cosine(first, peak, end, warm, decay):
    def formula(t):
        if t < warm:
            return rise(first, peak, warm, t)
        return blend("cosine", peak, end, min((t - warm) / decay, 1.0))

    schedule = S.warmup_cosine(peak, warm, warm + decay, end, start=as_start(first))
    assert_follows(schedule, formula, around(warm + decay), scale=max(first or 0.0, peak, end))
    assert schedule(warm) == peak
    assert_same_bits(schedule.values([warm + decay, *FAR]), [end] * 4)


@given(first=starts, peak=values, end=values, warm=lengths_or_none, decay=lengths)
def test_warmup_linear(first, peak, end, warm, decay):
    def formula(t):
        if t < warm:
            return rise(first, peak, warm, t)
        return blend("linear", peak, end, min((t - warm) / decay, 1.0))

    schedule = S.warmup_linear(peak, warm, warm + decay, end, start=as_start(first))
    assert_follows(schedule, formula, around(warm + decay), scale=max(first or 0.0, peak, end))
    assert schedule(warm) == peak
    assert_same_bits(schedule.values([warm + decay, *FAR]), [end] * 4)


@given(first=starts, peak=values, warm=lengths_or_none)
def test_warmup_constant(first, peak, warm):
    def formula(t):
        return rise(first, peak, warm, t) if t < warm else peak

    schedule = S.warmup_constant(peak, warm, start=as_start(first))
    assert_follows(schedule, formula, around(warm), scale=max(first or 0.0, peak))
    assert_same_bits(schedule.values([warm, *FAR]), [peak] * 4)


def test_the_defaults_are_what_the_issue_says():
    assert S.warmup_cosine(1.0, 4, 8) == S.warmup_cosine(1.0, 4, 8, 0.0, start=0.0)
    assert S.warmup_linear(1.0, 4, 8) == S.warmup_linear(1.0, 4, 8, 0.0, start=0.0)
    assert S.wsd(1.0, 4, 4, 4) == S.wsd(1.0, 4, 4, 4, 0.0, shape="linear", start=0.0)


# wsd


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt", "exponential"])
@settings(max_examples=60)
@given(
    first=starts,
    peak=positives,
    end=positives,
    warm=lengths_or_none,
    stable=lengths_or_none,
    decay=lengths,
)
def test_wsd(shape, first, peak, end, warm, stable, decay):
    def formula(t):
        if t < warm:
            return rise(first, peak, warm, t)
        if t < warm + stable:
            return peak
        return blend(shape, peak, end, min((t - warm - stable) / decay, 1.0))

    total = warm + stable + decay
    schedule = S.wsd(peak, warm, stable, decay, end, shape=shape, start=as_start(first))
    assert_follows(schedule, formula, around(total), scale=max(first or 0.0, peak, end))
    plateau = range(warm, warm + stable + 1)
    assert_same_bits(schedule.values(plateau), [peak] * (stable + 1))
    assert_same_bits(schedule.values([total, *FAR]), [end] * 4)


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_wsd_may_end_at_zero(shape):
    schedule = S.wsd(1.0, 2, 3, 7, shape=shape)
    assert schedule(11) > 0.0
    assert_same_bits(schedule(12), 0.0)


# one cycle


def one_cycle_formula(values, total, pct_start, shape):
    """torch's OneCycleLR: phases that end at fractions of a step, each step in the first
    phase whose end it does not pass."""
    rise_steps = pct_start * total
    ends = [0.0, rise_steps - 1.0, total - 1.0]
    if len(values) == 4:
        ends.insert(2, 2.0 * rise_steps - 2.0)

    def formula(t):
        for i in range(len(values) - 1):
            if t <= ends[i + 1]:
                x = (t - ends[i]) / (ends[i + 1] - ends[i])
                return blend(shape, values[i], values[i + 1], x)
        return values[-1]

    return formula


cycles = st.tuples(st.integers(2, 80), st.floats(0.05, 0.95), st.booleans()).filter(
    lambda c: c[0] * c[1] > 1.0 + 1e-9 and (not c[2] or c[1] < 0.5)
)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@given(peak=positives, cycle=cycles, div=st.floats(1.0, 50.0), final_div=st.floats(1.0, 1e5))
def test_one_cycle(shape, peak, cycle, div, final_div):
    total, pct_start, three_phase = cycle
    first, last = peak / div, peak / div / final_div
    path = [first, peak, first, last] if three_phase else [first, peak, last]
    schedule = S.one_cycle(
        peak,
        total,
        pct_start=pct_start,
        shape=shape,
        div_factor=div,
        final_div_factor=final_div,
        three_phase=three_phase,
    )
    formula = one_cycle_formula(path, total, pct_start, shape)
    assert_follows(schedule, formula, around(total), scale=peak)
    assert schedule(0) == first
    assert_same_bits(schedule.values([total, *FAR]), [last] * 4)
    assert schedule(total - 1) == pytest.approx(last, rel=1e-12, abs=0.0)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@given(low=values, high=values, cycle=cycles)
def test_one_cycle_momentum(shape, low, high, cycle):
    total, pct_start, three_phase = cycle
    path = [high, low, high, high] if three_phase else [high, low, high]
    schedule = S.one_cycle_momentum(
        total, low=low, high=high, pct_start=pct_start, shape=shape, three_phase=three_phase
    )
    formula = one_cycle_formula(path, total, pct_start, shape)
    assert_follows(schedule, formula, around(total), scale=max(low, high))
    assert schedule(0) == high
    assert_same_bits(schedule.values([total, *FAR]), [high] * 4)


@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_peaks_exactly_where_the_rise_ends_at_a_step(three_phase):
    cycle = S.one_cycle(0.7, 40, pct_start=0.25, three_phase=three_phase)
    assert cycle(9) == pytest.approx(0.7, rel=1e-15, abs=0.0)
    assert max(cycle.values(range(41))) == cycle(9)
