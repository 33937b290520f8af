"""How results are compared: by bits, in ulp, or with a stated tolerance."""

import math

import mpmath
import numpy as np
import pytest


def floats(values):
    return np.asarray(values, dtype=np.float64)


def bits(values):
    """The bit patterns, with one pattern for all NaN."""
    array = np.atleast_1d(floats(values))
    return np.where(np.isnan(array), np.nan, array).view(np.uint64)


def assert_same_bits(got, want, of=None):
    """Equal in every bit; a failure shows the first difference (and ``of``, its arguments)."""
    __tracebackhide__ = True
    got, want = np.atleast_1d(floats(got)), np.atleast_1d(floats(want))
    assert got.shape == want.shape
    different = np.flatnonzero(bits(got) != bits(want))
    if different.size:
        i = different[0]
        source = "" if of is None else f" of {[float(x[i]) for x in of]!r}"
        pytest.fail(
            f"{different.size} of {got.size} differ, first{source} at {i}: "
            f"{float(got[i])!r} is not {float(want[i])!r}"
        )


def ulp_error(value, truth):
    """|value - truth| in units of the last place of the correctly rounded truth."""
    nearest = float(truth)
    if math.isinf(value) or math.isinf(nearest):
        return 0.0 if value == nearest else math.inf
    return float(abs(mpmath.mpf(value) - truth) / mpmath.mpf(math.ulp(nearest)))


def assert_follows(schedule, formula, steps, scale):
    """The schedule is the plain formula, within rounding of the largest value (``scale``)."""
    __tracebackhide__ = True
    got = schedule.values(steps)
    want = floats([formula(t) for t in steps])
    wrong = np.flatnonzero(~(np.abs(got - want) <= 1e-14 * scale + 1e-12 * np.abs(want)))
    if wrong.size:
        i = wrong[0]
        pytest.fail(f"at step {steps[i]}: {got[i]!r} is not {want[i]!r}; {schedule!r}")
