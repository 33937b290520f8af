"""Schedule: arithmetic and calls."""

import math
import operator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lib.random_schedules import schedules, steps
from lib.schedule_values import assert_same_bits

from lrfused import schedules as S
from lrfused.schedules import Schedule

ARITHMETIC = [
    *(operator.add, operator.sub, operator.mul),
    *(operator.truediv, operator.pow, operator.mod),
]
t = S.step

# Arithmetic


@given(
    op=st.sampled_from(ARITHMETIC),
    number=st.integers(1, 9) | st.integers(1, 36).map(lambda n: n / 4),
    at=st.integers(1, 9),
)
def test_arithmetic_from_both_sides(op, number, at):
    assert op(t, number)(at) == pytest.approx(op(float(at), number), rel=1e-13, abs=0.0)
    assert op(number, t)(at) == pytest.approx(op(number, float(at)), rel=1e-13, abs=0.0)
    assert op(t, t)(at) == pytest.approx(op(float(at), float(at)), rel=1e-13, abs=0.0)


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize(
    "number",
    [3, 3.0, np.float64(3), np.float32(3), np.float16(3), np.int64(3), np.int8(3), np.uint32(3)],
    ids=lambda x: type(x).__name__,
)
def test_numpy_scalars_are_numbers(op, number):
    assert op(t, number) == op(t, 3.0)
    assert op(number, t) == op(3.0, t)
    assert type(op(number, t)) is Schedule


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize(
    "other",
    ["3", None, True, 1j, [1.0], np.ones(2), np.bool_(True), torch.tensor(1.0)],
    ids=lambda x: type(x).__name__,
)
def test_arithmetic_with_anything_else_is_an_error(op, other):
    with pytest.raises(TypeError):
        op(t, other)
    with pytest.raises(TypeError):
        op(other, t)


def test_a_number_beyond_float64_is_an_error_of_value():
    with pytest.raises(ValueError, match=r"finite|large|float"):
        t * 10**400


def test_negation():
    assert (-t)(3) == -3.0
    assert_same_bits((-t)(0), -0.0)


@pytest.mark.parametrize("f", [S.floor, S.sqrt, S.exp, S.log, S.cos])
def test_functions_of_numbers_and_of_nothing_else(f):
    assert f(4.0).program.code == ()
    assert f(t).program.code != ()
    for bad in ("4", None, True, torch.tensor(4.0)):
        with pytest.raises(TypeError):
            f(bad)


@pytest.mark.parametrize("f", [S.minimum, S.maximum, S.less, S.less_equal, S.equal])
def test_functions_of_two_numbers(f):
    assert f(t, 4) == f(t, 4.0)
    assert f(4, t) == f(np.float32(4), t)
    for bad in ("4", None, True):
        with pytest.raises(TypeError):
            f(t, bad)
        with pytest.raises(TypeError):
            f(bad, t)


# No order, no truth


@pytest.mark.parametrize("op", [operator.lt, operator.le, operator.gt, operator.ge])
def test_schedules_have_no_order(op):
    for other in (t + 1, 1, 1.0, np.float64(1.0)):
        with pytest.raises(TypeError):
            op(t, other)
        with pytest.raises(TypeError):
            op(other, t)
    with pytest.raises(TypeError):
        sorted([t, t + 1])


def test_schedules_have_no_truth_value():
    for schedule in (t, S.constant(0.0), S.constant(1.0)):
        with pytest.raises(TypeError, match="no truth value"):
            bool(schedule)
        with pytest.raises(TypeError, match="no truth value"):
            print("taken" if schedule else "not taken")


def test_schedules_are_no_numbers():
    for convert in (float, int, len, iter):
        with pytest.raises(TypeError):
            convert(S.constant(1.0))


# Calls


@given(schedule=schedules(), at=st.lists(steps, min_size=1, max_size=12))
def test_vectorised_values_equal_calls(schedule, at):
    assert_same_bits(schedule.values(at), [schedule(step) for step in at])


@pytest.mark.parametrize("schedule", [t, t * 2.0, S.constant(3.0), S.table([1.0, 2.0])], ids=repr)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (2, 3), (3, 0), (1, 1, 2)])
def test_values_keep_the_shape(schedule, shape):
    at = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    got = schedule.values(at)
    assert isinstance(got, np.ndarray)
    assert got.shape == shape
    assert got.dtype == np.float64
    assert got.ravel().tolist() == [schedule(int(i)) for i in at.ravel()]


@pytest.mark.parametrize(
    "at",
    [
        range(5),
        [0, 1, 2, 3, 4],
        (0, 1, 2, 3, 4),
        np.arange(5, dtype=np.uint8),
        np.arange(5, dtype=np.int16),
        np.arange(5, dtype=np.uint64),
    ],
)
def test_values_of_any_integers(at):
    assert (t * 2.0).values(at).tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert S.constant(1.0).values(range(0)).tolist() == []


def test_values_are_the_callers_own():
    schedule = S.table([1.0, 2.0])
    for s in (t, S.constant(1.0), schedule):
        s.values([0, 1])[:] = 9.0
    at = np.array([0, 1])
    t.values(at)[:] = 9.0
    assert schedule.values(at).tolist() == [1.0, 2.0]
    assert at.tolist() == [0, 1]


@pytest.mark.parametrize("bad", [[-1], [0, -5], [2**53 + 1], [2**63], -1])
def test_values_out_of_range(bad):
    with pytest.raises(ValueError, match=r"^steps"):
        t.values(bad)


@pytest.mark.parametrize("bad", [[1.0], 2.5, [True], ["1"], [None], [10**30], None, "12"])
def test_values_of_the_wrong_type(bad):
    with pytest.raises(TypeError, match=r"^steps"):
        t.values(bad)


def test_the_range_of_a_call():
    for schedule in (t, S.constant(1.0)):
        assert schedule(2**53) in (2.0**53, 1.0)
        for bad in (-1, 2**53 + 1, 10**400):
            with pytest.raises(ValueError, match=r"^step"):
                schedule(bad)
        for bad in (1.0, True, None, "1", np.float64(1), torch.tensor(1), t):
            with pytest.raises(TypeError, match=r"^step"):
                schedule(bad)
        assert schedule(np.int64(1)) == schedule(np.uint8(1)) == 1.0
        assert type(schedule(1)) is float
