"""join, per_round, shifted, scaled and at, of any schedules, bit for bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lib.random_schedules import schedules, steps
from lib.schedule_values import assert_same_bits

from lrfused import schedules as S


@st.composite
def joined(draw):
    parts = draw(st.lists(schedules(max_operations=5), min_size=1, max_size=4))
    boundaries = st.sets(
        st.integers(1, 50) | st.integers(1, 2**40),
        min_size=len(parts) - 1,
        max_size=len(parts) - 1,
    )
    return parts, sorted(draw(boundaries))


@given(parts_and_boundaries=joined(), at=st.lists(steps, max_size=10))
def test_join_runs_each_part_on_its_own_clock(parts_and_boundaries, at):
    parts, boundaries = parts_and_boundaries
    schedule = S.join(parts, boundaries)
    for t in [0, *at, *boundaries, *(b - 1 for b in boundaries)]:
        i = sum(b <= t for b in boundaries)
        began = boundaries[i - 1] if i else 0
        assert_same_bits(schedule(t), parts[i](t - began))


@given(schedule=schedules(), k=st.integers(1, 1000), at=st.lists(steps, min_size=1))
def test_per_round(schedule, k, at):
    assert_same_bits(S.per_round(schedule, k).values(at), schedule.values([t // k for t in at]))


@given(rounds=st.integers(1, 2**30), k=st.integers(1, 2**20))
def test_per_round_moves_at_the_very_step(rounds, k):
    schedule = S.per_round(S.step, k)
    assert [schedule(rounds * k - 1), schedule(rounds * k)] == [rounds - 1, rounds]


@given(schedule=schedules(), k=st.integers(0, 2**40), at=st.lists(steps, min_size=1))
def test_shifted_waits_at_the_first_value(schedule, k, at):
    want = schedule.values([max(t - k, 0) for t in at])
    assert_same_bits(schedule.shifted(k).values(at), want)


@given(schedule=schedules(), factor=st.floats(), at=st.lists(steps, min_size=1))
def test_scaled_multiplies_every_value(schedule, factor, at):
    want = [factor * value for value in schedule.values(at).tolist()]
    assert_same_bits(schedule.scaled(factor).values(at), want)
    assert_same_bits(schedule.scaled(S.step).values(at), (S.step * schedule).values(at))


@given(schedule=schedules(), k=st.integers(1, 9), at=st.lists(steps, min_size=1))
def test_at_reads_the_schedule_elsewhere(schedule, k, at):
    elsewhere = schedule.at(S.floor(S.step / k) + 3)
    assert_same_bits(elsewhere.values(at), schedule.values([t // k + 3 for t in at]))
    assert schedule.at(S.step) == schedule


@given(schedule=schedules(), position=st.integers(0, 2**40), at=st.lists(steps, min_size=1))
def test_at_a_number_is_that_value_at_every_step(schedule, position, at):
    assert_same_bits(schedule.at(position).values(at), [schedule(position)] * len(at))


def test_shifted_and_scaled_refuse_what_is_no_number():
    for bad in ("2", None, True, [1.0]):
        with pytest.raises(TypeError):
            S.step.scaled(bad)
        with pytest.raises(TypeError):
            S.step.at(bad)
        with pytest.raises(TypeError, match=r"^steps"):
            S.step.shifted(bad)
