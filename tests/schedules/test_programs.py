"""Programs: the C++ evaluator equals the Python one, and both follow IEEE."""

import math
import operator
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.programs import single
from lib.random_schedules import SPECIAL, input_values, schedules, steps
from lib.schedule_values import assert_same_bits

import lrfused.schedules.evaluate
from lrfused import schedules as S
from lrfused.native import cpu, why_not_cpu
from lrfused.schedules.bytecode import ARITY, MAX_INSTRUCTIONS, Op

INF, NAN = math.inf, math.nan
HEADER = Path(__file__).parents[2] / "csrc" / "core" / "program.h"

needs_cpp = pytest.mark.skipif(cpu is None, reason=f"no C++ evaluator: {why_not_cpu}")


def in_cpp(program, steps, inputs=()):
    return cpu.evaluate_many(
        program.code,
        [*program.constants, *inputs],
        program.result,
        program.table,
        np.asarray(steps, dtype=np.float64),
    )


@needs_cpp
@settings(max_examples=800)
@given(schedule=schedules(), at=st.lists(steps, min_size=1, max_size=20))
def test_evaluators_agree_on_random_expressions(schedule, at):
    inputs = input_values(schedule)
    in_python = schedule.program.evaluate(np.array(at, dtype=np.float64), inputs)
    assert_same_bits(in_cpp(schedule.program, at, inputs), in_python, of=(at,))
    assert_same_bits(schedule.values(at), in_python)
    assert_same_bits([schedule(t) for t in at], in_python)


@needs_cpp
@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name)
def test_evaluators_agree_on_every_operation_and_special_value(rng, op):
    random_bits = rng.numpy.integers(0, 2**64, 200, dtype=np.uint64).view(np.float64)
    x = np.concatenate([SPECIAL, random_bits])
    third = [(), (-0.0,), (NAN,)] if op == Op.SELECT else [()]
    for y in SPECIAL if ARITY[op] > 1 else [None]:
        for z in third:
            operands = () if y is None else (y, *z, *z)[: ARITY[op] - 1]
            operands = operands if len(operands) == ARITY[op] - 1 else (*operands, 7.0)
            program = single(op, *operands, table=[1.5, -2.5, 0.0, -0.0, 4e-310])
            assert_same_bits(in_cpp(program, x), program.evaluate(x), of=(x,))


@pytest.mark.parametrize("evaluator", ["C++", "Python"])
def test_one_value_by_either_evaluator(monkeypatch, evaluator):
    if evaluator == "C++" and cpu is None:
        pytest.skip(f"no C++ evaluator: {why_not_cpu}")
    if evaluator == "Python":
        monkeypatch.setattr(lrfused.schedules.evaluate, "cpu", None)
    schedule = S.warmup_cosine(1e-3, 7, 61) * S.input(torch.tensor(1 / 3), "third") + S.table([2.5])
    for t in (0, 3, 7, 60, 61, 2**53):
        value = schedule(t)
        assert type(value) is float
        assert_same_bits(value, schedule.values([t]))


def test_operation_numbers_are_those_of_cpp():
    body = re.search(r"enum Op : int32_t \{(.*?)\};", HEADER.read_text(), re.DOTALL)
    assert body is not None
    names = [name.strip() for name in body[1].split(",")]
    assert names == [*(op.name for op in sorted(Op)), "OP_COUNT"]
    assert [int(op) for op in sorted(Op)] == list(range(len(Op)))


# IEEE semantics: every one of these is a value, none is an exception or a warning.

t = S.step


@pytest.mark.parametrize(
    ("schedule", "at", "want"),
    [
        (1.0 / t, 0, INF),
        (-1.0 / t, 0, -INF),
        (t / t, 0, NAN),
        (t / 0.0, 0, NAN),
        (t / 0.0, 1, INF),
        (t / -0.0, 1, -INF),
        (t - INF, 3, -INF),
        (INF - INF + t, 3, NAN),
        (INF * t, 0, NAN),
        (1e300 * (t * 1e300), 1, INF),
        (S.log(t), 0, -INF),
        (S.log(-t), 1, NAN),
        (S.log(-t), 0, -INF),
        (S.sqrt(t - 2), 1, NAN),
        (S.sqrt(t * -0.0), 1, -0.0),
        (S.exp(t * 1e9), 1, INF),
        (S.exp(t * -1e9), 1, 0.0),
        (S.cos(t / 0.0), 1, NAN),
        (t**-1, 0, INF),
        (t**0, 0, 1.0),
        ((-8.0 * t) ** (1 / 3), 1, NAN),
        ((-2.0) ** t, 3, -8.0),
        (S.floor(-t / 2), 1, -1.0),
        (S.floor(t / 0.0), 1, INF),
        (t % 0.0, 5, NAN),
        (t % INF, 0, NAN),
        ((-t) % 3.0, 1, 2.0),
        (t % -3.0, 1, -2.0),
        (-t, 0, -0.0),
    ],
)
def test_ieee_values(schedule, at, want):
    assert_same_bits(schedule(at), want)
    assert_same_bits(schedule.values([at]), want)


def test_constants_fold_to_the_same_values_as_programs():
    for x in SPECIAL:
        for y in SPECIAL:
            for f in (operator.truediv, operator.pow, operator.mod, S.minimum, S.less_equal):
                folded = f(t.at(x), y)
                assert folded.program.code == ()
                late = f(S.input(torch.tensor(x, dtype=torch.float64), "x"), y)
                assert_same_bits(folded(0), late(0))


@pytest.mark.parametrize("f", [S.minimum, S.maximum])
def test_minimum_and_maximum_propagate_nan_from_either_side(f):
    nan = t.at(NAN)
    for other in (t, -t, t / 0.0, -t / 0.0, nan):
        assert math.isnan(f(other, nan)(1))
        assert math.isnan(f(nan, other)(1))
    assert math.isnan(f(t / t, t + 1)(0))  # a nan that a step makes, not a constant


def test_minimum_and_maximum_of_numbers():
    assert [S.minimum(t, 3)(i) for i in (2, 3, 4)] == [2.0, 3.0, 3.0]
    assert [S.maximum(3, t)(i) for i in (2, 3, 4)] == [3.0, 3.0, 4.0]
    assert S.minimum(t, -INF)(1) == -INF
    assert S.maximum(t, INF)(1) == INF


def test_comparisons_are_0_or_1_and_0_with_nan():
    assert [S.less(t, 3)(i) for i in (2, 3, 4)] == [1.0, 0.0, 0.0]
    assert [S.less_equal(t, 3)(i) for i in (2, 3, 4)] == [1.0, 1.0, 0.0]
    assert [S.equal(t, 3)(i) for i in (2, 3, 4)] == [0.0, 1.0, 0.0]
    assert S.equal(t * -0.0, 0.0)(1) == 1.0
    for f in (S.less, S.less_equal, S.equal):
        assert f(t / t, t)(0) == f(t, t / t)(0) == f(t / t, t / t)(0) == 0.0


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_select_discards_what_it_does_not_choose(bad):
    assert S.select(S.less(t, 5), 2.0, t.at(bad))(0) == 2.0
    assert S.select(S.less(t, 5), t.at(bad), 2.0)(5) == 2.0
    assert S.select(S.less(t, 5), 2.0, S.log(t - 9))(0) == 2.0
    assert_same_bits(S.select(S.less(t, 5), -0.0, 1.0)(0), -0.0)


def test_select_takes_the_first_wherever_the_condition_is_not_0():
    for condition, want in (
        (1, 8.0),
        (-1, 8.0),
        (5e-324, 8.0),
        (NAN, 8.0),
        (0.0, 9.0),
        (-0.0, 9.0),
    ):
        assert S.select(t * condition, 8.0, 9.0)(1) == want


@settings(max_examples=100)
@given(
    x=st.floats(-1e6, 1e6) | st.integers(-100, 100).map(float),
    y=st.floats(-1e3, 1e3) | st.integers(-9, 9).map(float),
)
def test_mod_is_x_minus_y_floor_of_x_over_y(x, y):
    operand = S.input(torch.tensor(x, dtype=torch.float64), "x")
    with np.errstate(all="ignore"):
        want = np.float64(x) - y * np.floor(np.float64(x) / y)
    assert_same_bits((operand % y)(0), want)


# Compilation


def test_a_part_used_twice_is_computed_once():
    part = S.cos(t / 10)
    assert len((part * part + part).program.code) == 4


def test_constants_are_folded():
    schedule = (S.exp(1.0 * t.at(2.0)) + 3) * t
    assert len(schedule.program.code) == 1
    assert S.constant(3.0).program.code == ()
    assert t.at(3.0).program.code == ()


def test_numbers_that_coincide_do_not_change_the_shape():
    shapes = {
        (a * t + b * S.floor(t / c)).program.shape for a, b, c in [(1, 2, 3), (1, 1, 1), (0, 0, 5)]
    }
    assert len(shapes) == 1


def test_different_operations_are_different_shapes():
    assert (t + 1.0).program.shape != (t - 1.0).program.shape
    assert (t - 1.0).program.shape != (1.0 - t).program.shape


def test_too_many_instructions_are_refused_by_name():
    schedule = sum((S.sqrt(t + i) for i in range(MAX_INSTRUCTIONS // 3)), start=t)
    assert len(schedule.program.code) <= MAX_INSTRUCTIONS
    wide = [S.sqrt(t + i) for i in range(MAX_INSTRUCTIONS)]
    while len(wide) > 1:
        wide = [a + b for a, b in zip(wide[::2], wide[1::2], strict=True)]
    with pytest.raises(ValueError, match="instructions, the limit is 256"):
        wide[0](0)


def test_too_deep_expressions_are_refused():
    deep = t
    with pytest.raises(ValueError, match="operations deep, the limit is 200"):
        for _ in range(300):
            deep = S.sqrt(deep)
