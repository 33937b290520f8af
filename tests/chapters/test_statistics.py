"""Intervals against scipy's own tests, and the verdicts that follow from them."""

import math

import numpy as np
import pytest
from lib.benchmarks import BENCHMARKS  # noqa: F401  (puts the studies on the path)
from scipy import stats

# isort: split
from studies.common.statistics import (
    CONFIRMED,
    PARTLY,
    REFUTED,
    UNDECIDED,
    absent,
    instead,
    intervals,
    larger,
    verdict,
)


def claim(mean: float, margin: float = 0.0):
    return larger("a claim", [mean - 0.01, mean, mean + 0.01], than=margin, unit="1")


def control(mean: float):
    return absent("a control", [mean - 0.01, mean, mean + 0.01], within=0.5, unit="1")


def other(mean: float):
    return instead("what holds", [mean - 0.01, mean, mean + 0.01], than=0.0, unit="1")


@pytest.mark.parametrize("count", [2, 3, 5, 12, 40])
def test_an_interval_is_that_of_the_paired_t_test(rng, count):
    first, second = rng.numpy.normal(size=(2, count))
    found = larger("a difference", first - second, than=0.0, unit="1")
    wanted = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(first - second))
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_intervals_by_column_are_those_of_each_column(rng):
    values = rng.numpy.normal(size=(7, 3))
    mean, half = intervals(values)
    for column in range(3):
        wanted = stats.ttest_1samp(values[:, column], 0.0).confidence_interval(0.95)
        assert mean[column] - half[column] == pytest.approx(wanted.low)
        assert mean[column] + half[column] == pytest.approx(wanted.high)


@pytest.mark.parametrize("count", [5, 8, 20])
def test_an_effect_of_the_smallest_size_is_seen_in_eight_of_ten_runs(rng, count):
    """By the definition, with the true spread; the bound is five standard errors of the share."""
    spread, trials, margin = 2.0, 4000, 0.3
    fixed = np.resize([1.0, -1.0], count) if count % 2 == 0 else np.array([1.0, -1.0] * 2 + [0.0])
    fixed = fixed / fixed.std(ddof=1) * spread
    smallest = larger("known", fixed, than=margin, unit="1").smallest
    samples = rng.numpy.normal(smallest, spread, size=(trials, count))
    seen = np.mean([larger("drawn", row, than=margin, unit="1").holds for row in samples])
    exact = 1.0 - stats.nct.cdf(
        stats.t.ppf(0.975, count - 1), count - 1, (smallest - margin) / spread * math.sqrt(count)
    )
    assert abs(seen - exact) < 5.0 * math.sqrt(0.25 / trials)
    assert 0.75 < exact < 0.87


@pytest.mark.parametrize(
    ("statements", "wanted"),
    [
        ([claim(1.0), control(0.0)], CONFIRMED),
        ([claim(1.0), claim(2.0), control(0.1)], CONFIRMED),
        ([claim(-1.0), control(0.0)], REFUTED),
        ([claim(-1.0), claim(-2.0), other(1.0)], REFUTED),
        ([claim(1.0), claim(-1.0), control(0.0)], PARTLY),
        ([claim(0.0), control(0.0)], UNDECIDED),
        ([claim(1.0), claim(0.0)], UNDECIDED),
        ([claim(1.0), control(1.0)], UNDECIDED),
        ([claim(1.0), control(0.49)], UNDECIDED),
        ([claim(-1.0), other(0.0)], UNDECIDED),
        ([control(0.0)], UNDECIDED),
        ([claim(1.0, margin=2.0)], REFUTED),
        ([claim(1.0, margin=1.0)], UNDECIDED),
    ],
)
def test_verdict(statements, wanted):
    assert verdict(statements) == wanted


@pytest.mark.parametrize("values", [[1.0], [], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_what_has_no_interval_is_refused(values):
    with pytest.raises(ValueError, match="values of 'a claim'"):
        larger("a claim", values, than=0.0, unit="1")


def test_equal_values_have_an_interval_of_no_width():
    found = larger("exact", [3.0, 3.0, 3.0], than=2.0, unit="1")
    assert (found.low, found.high, found.smallest) == (3.0, 3.0, 2.0)
    assert found.holds


@pytest.mark.parametrize("margin", [-1.0, math.nan, math.inf])
def test_a_margin_that_decides_nothing_is_refused(margin):
    with pytest.raises(ValueError, match="margin of 'a claim': must be finite and not negative"):
        larger("a claim", [1.0, 2.0], than=margin, unit="1")
    with pytest.raises(ValueError, match="margin of 'a control'"):
        absent("a control", [1.0, 2.0], within=margin, unit="1")
    with pytest.raises(ValueError, match="margin of 'a control'"):
        absent("a control", [1.0, 2.0], within=0.0, unit="1")
