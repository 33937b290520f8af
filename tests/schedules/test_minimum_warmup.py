"""minimum_warmup_steps: the smallest length by trial, closed forms, and real gradient descent."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lrfused
from lrfused import schedules as S


def smallest(peak, bounds, limit):
    """By trial, in plain Python."""
    length = 1
    while any(peak * min((t + 1) / length, 1.0) * b >= limit for t, b in enumerate(bounds)):
        length += 1
    return length


@settings(max_examples=60)
@given(
    peak=st.floats(0.01, 1.0),
    bounds=st.lists(st.floats(0.0, 200.0), min_size=1, max_size=15),
    limit=st.floats(0.5, 4.0),
)
def test_the_smallest_length_by_trial(peak, bounds, limit):
    """Of any bounds, up to the rounding to float32 of products that are equal to the limit."""
    got = S.minimum_warmup_steps(peak, S.table(bounds), len(bounds), limit=limit)
    most = smallest(peak, bounds, limit * (1 - 1e-7))
    assert smallest(peak, bounds, limit * (1 + 1e-12)) <= got <= most


def assert_is_smallest(length, peak, bound, total):
    """By the values of the schedule itself, and those that steps in float32 use."""
    steps = np.arange(total)

    def largest(length):
        lr = S.warmup_constant(peak, length, start="1/n").values(steps)
        return (np.maximum(lr, lr.astype(np.float32)) * bound.values(steps)).max()

    assert largest(length) < 2.0
    assert length == 1 or largest(length - 1) >= 2.0


@given(peak=st.floats(1e-4, 1.0), bound=st.floats(1.0, 1e4), total=st.integers(1, 300))
def test_the_result_is_stable_and_one_less_is_not(peak, bound, total):
    falling = S.exponential(bound, bound / 50.0, steps=total)
    assert_is_smallest(S.minimum_warmup_steps(peak, falling, total), peak, falling, total)


@pytest.mark.parametrize(
    ("peak", "bound", "total", "wanted"),
    [(0.29, 56.0, 25, 204), (1.0, 98.0, 3, 147), (1.0, 103.0, 22, 1134)],
    ids=["one more", "one less", "as many, by float32"],
)
def test_rounding_counts_as_the_schedule_rounds(peak, bound, total, wanted):
    """total * peak * bound / limit is whole here, but for rounding."""
    assert S.minimum_warmup_steps(peak, bound, total) == wanted
    assert_is_smallest(wanted, peak, S.constant(bound), total)


@pytest.mark.parametrize(
    ("peak", "bound", "limit", "wanted"),
    [
        (0.5, 3.0, 2.0, 1),  # stable at the peak
        (0.5, 4.0, 2.0, 101),  # at the limit: the last update must stay below it
        (0.5, 8.0, 2.0, 201),
        (0.5, 8.0, 4.0, 101),  # heavy ball would allow more
        (0.5, 8.0, 4.5, 1),
        (0.5, 0.0, 2.0, 1),
    ],
)
def test_a_constant_bound(peak, bound, limit, wanted):
    """floor(total_steps * peak * bound / limit) + 1, more than the run has, or 1."""
    assert S.minimum_warmup_steps(peak, bound, 100, limit=limit) == wanted


@pytest.mark.parametrize("peak", [0.1, 0.3, 0.7])
def test_the_lr_is_that_of_a_step(peak):
    """float32 of 0.1 and 0.3 is larger, of 0.7 smaller."""
    bound = 2.0 / peak * (1 - 1e-12)
    is_larger = float(np.float32(peak)) > peak
    length = S.minimum_warmup_steps(peak, bound, 10)
    assert length == (11 if is_larger else 1)
    assert_is_smallest(length, peak, S.constant(bound), 10)


def test_a_very_long_warmup():
    """Rounding to float32 is many updates there; it is still the smallest."""
    for bound in (1e9, 3e11):
        length = S.minimum_warmup_steps(0.3, bound, 100)
        assert length == pytest.approx(100 * 0.3 * bound / 2, rel=1e-6)
        assert_is_smallest(length, 0.3, S.constant(bound), 100)


def test_a_bound_that_falls_at_once():
    """An unstable peak until step 10: one update longer than (step + 1) * ratio there."""
    bound = S.join([S.constant(8.0), S.constant(1.0)], [10])
    assert S.minimum_warmup_steps(1.0, bound, 10**4) == 10 * 4 + 1


@pytest.mark.parametrize("shorter", [False, True])
def test_gradient_descent_on_a_quadratic_function(shorter):
    """It shrinks at every step with the shortest warmup, and grows at some step with a shorter one.

    The curvature of 1/2 * c(t) * w**2 falls; |1 - lr c| < 1 if and only if lr c < 2.
    """
    curvature, total = S.exponential(64.0, 1.0, steps=40), 60
    length = S.minimum_warmup_steps(0.5, curvature, total) - (5 if shorter else 0)
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    opt = lrfused.SGD([weight], lr=S.warmup_constant(0.5, length, start="1/n"))
    grew = False
    for t in range(total):
        before = weight.detach().abs().item()
        weight.grad = curvature(t) * weight.detach()
        opt.step()
        grew |= weight.detach().abs().item() > before
    assert grew == shorter


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peak": 0.0}, "^peak: must be greater than 0"),
        ({"peak": math.inf}, "^peak: must be finite"),
        ({"peak": 1e300, "bound": 1e300}, r"^peak: 1e\+300 needs a warmup of more than 2\*\*53"),
        ({"bound": -1.0}, "^bound: must not be negative"),
        ({"bound": math.nan}, "^bound: must be finite"),
        ({"bound": 10.0 - S.step}, "^bound: .*got -1.0 at step 11"),
        ({"bound": S.input(torch.tensor(8.0), "x")}, "^bound: must depend on the step alone"),
        ({"total_steps": 0}, "^total_steps: must be at least 1"),
        ({"limit": 0.0}, "^limit: must be greater than 0"),
        ({"limit": math.nan}, "^limit: must be finite"),
    ],
)
def test_wrong_values(options, message):
    with pytest.raises(ValueError, match=message):
        S.minimum_warmup_steps(**{**{"peak": 0.5, "bound": 8.0, "total_steps": 100}, **options})


@pytest.mark.parametrize(
    "options", [{"peak": S.step}, {"bound": None}, {"total_steps": 9.0}, {"limit": "2"}]
)
def test_wrong_types(options):
    with pytest.raises(TypeError, match=f"^{next(iter(options))}: must be"):
        S.minimum_warmup_steps(**{**{"peak": 0.5, "bound": 8.0, "total_steps": 100}, **options})
