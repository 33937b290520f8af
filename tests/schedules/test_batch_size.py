"""scale_lr and warmup_steps_for_batch against exact fractions and integers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lib.schedule_values import assert_same_bits

from lrfused import schedules as S

batches = st.integers(1, 10**6)
lengths = st.integers(0, 10**5)


@given(lr=st.floats(1e-6, 10.0), batch=batches, base=batches)
def test_the_lr_of_another_batch_size(lr, batch, base):
    linear, root = S.scale_lr(lr, batch, base), S.scale_lr(lr, batch, base, rule="sqrt")
    assert linear == pytest.approx(float(Fraction(lr) * batch / base), rel=1e-15, abs=0.0)
    assert root**2 == pytest.approx(lr * linear, rel=1e-14, abs=0.0)
    assert S.scale_lr(lr, base, base) == S.scale_lr(lr, base, base, "sqrt") == lr


@pytest.mark.parametrize("rule", ["linear", "sqrt"])
def test_every_value_of_a_schedule_is_scaled(rule):
    lr = S.warmup_cosine(0.5, 7, 30, 0.125)
    scaled = S.scale_lr(lr, 96, 40, rule)
    assert_same_bits(scaled.values(range(40)), [S.scale_lr(lr(t), 96, 40, rule) for t in range(40)])


@given(steps=lengths, batch=batches, base=batches)
def test_the_warmup_is_rounded_up(steps, batch, base):
    linear = S.warmup_steps_for_batch(steps, batch, base)
    assert linear == math.ceil(Fraction(steps * batch, base))
    samples = S.warmup_steps_for_batch(steps, batch, base, "samples")
    assert samples == math.ceil(Fraction(steps * base, batch))
    root = S.warmup_steps_for_batch(steps, batch, base, "sqrt")
    exact = Fraction(steps**2 * batch, base)  # of the square
    assert root**2 >= exact and (root == 0 or (root - 1) ** 2 < exact)
    assert all((n == 0) == (steps == 0) and type(n) is int for n in (linear, samples, root))


@pytest.mark.parametrize("rule", ["linear", "sqrt"])
@given(lr=st.floats(1e-3, 1.0), steps=st.integers(1, 100), base=st.integers(1, 64))
def test_with_the_rule_of_the_lr_the_slope_stays(rule, lr, steps, base):
    """A batch of 16 times the size: a warmup 16 or 4 times as long, to as many times the peak."""
    scaled = S.scale_lr(S.constant(lr), 16 * base, base, rule)
    length = S.warmup_steps_for_batch(steps, 16 * base, base, rule)
    short = S.warmup(S.constant(lr), steps, start=0.0).values(range(steps))
    long = S.warmup(scaled, length, start=0.0).values(range(length))
    assert long[:steps] == pytest.approx(short, rel=1e-12)


def test_rules_and_numbers_of_other_kinds():
    assert S.warmup_steps_for_batch(np.int16(500), np.int64(1024), np.int8(64)) == 8000
    assert S.scale_lr(np.float32(0.5), np.int64(1024), np.int8(64)) == 8.0


def test_results_that_are_too_large():
    with pytest.raises(ValueError, match=r"^lr: must be finite when .* got 1e\+308 \* 100.0"):
        S.scale_lr(1e308, 100, 1)
    assert S.warmup_steps_for_batch(2**53, 7, 7) == 2**53
    for rule, sizes in (("linear", (8, 7)), ("sqrt", (8, 7)), ("samples", (7, 8))):
        with pytest.raises(ValueError, match=r"^steps: must be at most 2\*\*53 when scaled"):
            S.warmup_steps_for_batch(2**53, *sizes, rule)


@pytest.mark.parametrize("function", [S.scale_lr, S.warmup_steps_for_batch])
@pytest.mark.parametrize(
    ("argument", "bad", "error"),
    [
        ("batch", 0, ValueError),
        ("batch", 2.0, TypeError),
        ("base", 0, ValueError),
        ("base", -8, ValueError),
        ("base", None, TypeError),
        ("rule", "cubic", ValueError),
        ("rule", None, ValueError),
    ],
)
def test_wrong_arguments(function, argument, bad, error):
    with pytest.raises(error, match=f"^{argument}: must be"):
        function(**{**{"batch": 64, "base": 8}, argument: bad}, **first_of(function, 3))


def first_of(function, value):
    return {"lr" if function is S.scale_lr else "steps": value}


@pytest.mark.parametrize(
    ("function", "bad", "error"),
    [
        (S.scale_lr, -0.1, ValueError),
        (S.scale_lr, math.nan, ValueError),
        (S.scale_lr, math.inf, ValueError),
        (S.scale_lr, "0.1", TypeError),
        (S.scale_lr, None, TypeError),
        (S.warmup_steps_for_batch, -1, ValueError),
        (S.warmup_steps_for_batch, 3.0, TypeError),
        (S.warmup_steps_for_batch, S.step, TypeError),
    ],
)
def test_a_wrong_first_argument(function, bad, error):
    with pytest.raises(error, match=r"^(lr|steps): must"):
        function(bad, 64, 8)
