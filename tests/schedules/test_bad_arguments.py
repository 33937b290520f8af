"""Wrong arguments are refused when the schedule is made, by the argument's name."""

import math
from fractions import Fraction

import numpy as np
import pytest

from lrfused import schedules as S

from .named import LENGTH, LENGTH_OR_NONE, POSITIVE, ROWS, SCHEDULE, SHAPE, START, VALUE

INF, NAN = math.inf, math.nan
FLAT = S.constant(1.0)

not_finite = [INF, -INF, NAN, np.float32("inf"), np.float64("nan"), 10**400]
not_numbers = [None, True, "1", 1j, [1.0], FLAT]
not_whole = [2.0, 2.5, None, True, "3", [1], FLAT, np.float64(3.0), Fraction(3)]

WRONG_VALUES = {
    VALUE: [-0.5, -5e-324, *not_finite],
    POSITIVE: [-0.5, 0.0, -0.0, *not_finite],
    LENGTH: [0, -1, -(10**6), np.int64(-3), *not_finite],
    LENGTH_OR_NONE: [-1, -(10**6), np.int8(-3), *not_finite],
    SHAPE: ["", "Linear", "square"],
    START: [-0.5, *not_finite, "1/m", "", "peak"],
    SCHEDULE: [],
}
WRONG_TYPES = {
    VALUE: not_numbers,
    POSITIVE: not_numbers,
    LENGTH: not_whole,
    LENGTH_OR_NONE: not_whole,
    SHAPE: [],
    START: [None, True, 1j, [1.0], FLAT],
    SCHEDULE: [1.0, 1, None, "linear", [FLAT]],
}
OPTIONAL = {"down_steps", "cycles"}  # None leaves these out


def cases(wrong):
    return [
        pytest.param(name, argument, bad, id=f"{name}-{argument}-{bad!r:.12}")
        for name, row in ROWS.items()
        for argument, kind in row.kinds.items()
        for bad in wrong[kind]
        if not (bad is None and argument in OPTIONAL)
    ]


@pytest.mark.parametrize("bad", [NAN, INF, -INF, np.float32("nan")])
def test_a_length_that_is_not_finite_is_said_to_be(bad):
    with pytest.raises(ValueError, match=r"^steps: must be finite, got -?(nan|inf)$"):
        S.linear(1.0, 0.0, bad)


def refused(error, name, argument, bad):
    with pytest.raises(error, match=rf"^{argument}\b"):
        ROWS[name].make(**{**ROWS[name].one, argument: bad})


@pytest.mark.parametrize(("name", "argument", "bad"), cases(WRONG_VALUES))
def test_wrong_values(name, argument, bad):
    refused(ValueError, name, argument, bad)


@pytest.mark.parametrize(("name", "argument", "bad"), cases(WRONG_TYPES))
def test_wrong_types(name, argument, bad):
    refused(TypeError, name, argument, bad)


@pytest.mark.parametrize("name", list(ROWS))
def test_the_settings_themselves_are_accepted(name):
    assert isinstance(ROWS[name].make(**ROWS[name].one), S.Schedule)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: S.warmup_cosine(1.0, 10, 10), "total_steps"),
        (lambda: S.warmup_linear(1.0, 10, 9), "total_steps"),
        (lambda: S.triangular(0.5, 0.25, 4), "high"),
        (lambda: S.triangular2(0.5, 0.25, 4), "high"),
        (lambda: S.exp_range(0.5, 0.25, 0.9, 4), "high"),
        (lambda: S.exp_range(0.25, 0.5, 1.5, 4), "gamma"),
        (lambda: S.cosine_restarts(1.0, 0.0, 4, factor=2), "cycles"),
        (lambda: S.cosine_restarts(1.0, 0.0, 4, factor=2, cycles=51), "cycles"),
        (lambda: S.cosine_restarts(1.0, 0.0, 2**40, factor=2, cycles=14), "cycles"),
        (lambda: S.one_cycle(1.0, 10, pct_start=1.0), "pct_start"),
        (lambda: S.one_cycle(1.0, 10, pct_start=0.5, three_phase=True), "pct_start"),
        (lambda: S.one_cycle(1.0, 10, pct_start=0.1), "pct_start"),
        (lambda: S.one_cycle(1.0, 1), "total_steps"),
        (lambda: S.one_cycle_momentum(10, pct_start=0.05), "pct_start"),
        (lambda: S.wsd(0.0, 2, 2, 2, 0.5, shape="exponential"), "peak"),
        (lambda: S.wsd(1.0, 2, 2, 2, 0.0, shape="exponential"), "end"),
        (lambda: S.warmup(FLAT, 4, start=0.0, shape="exponential"), "start"),
        (lambda: S.warmup(S.constant(0.0), 4, start=0.5, shape="exponential"), "schedule"),
        (lambda: S.warmup(S.constant(0.0), 4, start="1/n", shape="exponential"), "schedule"),
        (lambda: S.warmup(S.table([0.0]), 4, start=0.5, shape="exponential"), "schedule"),
        (lambda: S.warmup(FLAT, 4, start=0.0, shape="polynomial", power=0.0), "power"),
        (lambda: S.warmup(FLAT, 4, start=0.0, shape="polynomial", power=INF), "power"),
        (lambda: S.multi_step(1.0, 0.5, []), "milestones"),
        (lambda: S.multi_step(1.0, 0.5, [5, 5]), "milestones"),
        (lambda: S.multi_step(1.0, 0.5, [6, 5]), "milestones"),
        (lambda: S.multi_step(1.0, 0.5, [0, 5]), r"milestones\[0\]"),
        (lambda: S.multi_step(1.0, 0.5, [5, -6]), r"milestones\[1\]"),
        (lambda: S.join([FLAT, FLAT], []), "boundaries"),
        (lambda: S.join([FLAT, FLAT], [1, 2]), "boundaries"),
        (lambda: S.join([FLAT] * 3, [2, 2]), "boundaries"),
        (lambda: S.join([FLAT] * 3, [3, 2]), "boundaries"),
        (lambda: S.join([FLAT] * 3, [0, 2]), r"boundaries\[0\]"),
        (lambda: S.join([], []), "(schedules|boundaries)"),
        (lambda: FLAT.shifted(-1), "steps"),
        (lambda: S.from_function(lambda t: 1.0, -1), "steps"),
        (lambda: S.from_function(lambda t: NAN, 3), r"fn\(0\)"),
        (lambda: S.from_function(lambda t: 1.0 / (3 - min(t, 2)) if t < 3 else INF, 4), r"fn\(3\)"),
        (lambda: S.table([]), "values"),
        (lambda: S.table([[1.0]]), "values"),
        (lambda: S.table(1.0), "values"),
        (lambda: S.table([1.0, NAN]), "values: must be finite, got nan at index 1"),
        (lambda: S.table([INF]), "values"),
    ],
)
def test_arguments_that_do_not_fit_each_other(make, argument):
    with pytest.raises(ValueError, match=f"^{argument}"):
        make()


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: S.multi_step(1.0, 0.5, [5.0]), r"milestones\[0\]"),
        (lambda: S.multi_step(1.0, 0.5, 5), "milestones"),
        (lambda: S.join([FLAT, 1.0], [5]), r"schedules\[1\]"),
        (lambda: S.join(FLAT, []), "schedules"),
        (lambda: S.join([FLAT, FLAT], [5.0]), r"boundaries\[0\]"),
        (lambda: S.join([FLAT, FLAT], 5), "boundaries"),
        (lambda: FLAT.shifted(1.0), "steps"),
        (lambda: S.from_function(lambda t: 1.0, 2.0), "steps"),
        (lambda: S.from_function(lambda t: "1", 2), r"fn\(0\)"),
        (lambda: S.from_function(5, 2), "fn"),
        (lambda: S.table(["a"]), "values"),
        (lambda: S.table([1j]), "values"),
        (lambda: S.table([[1.0], [1.0, 2.0]]), "values"),
    ],
)
def test_arguments_of_the_wrong_type(make, argument):
    """A sequence of the wrong things may be either error, but it names the argument."""
    with pytest.raises((TypeError, ValueError), match=f"^{argument}"):
        make()


def test_boundaries_and_milestones_may_be_arrays():
    three = [S.constant(1.0), S.constant(2.0), S.constant(3.0)]
    assert S.join(three, np.array([2, 5])) == S.join(three, [2, 5])
    assert S.multi_step(1.0, 0.5, np.array([2, 5])) == S.multi_step(1.0, 0.5, [2, 5])
