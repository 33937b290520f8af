"""Momentum as a difference equation against its roots in 50 digits, and against optimizers."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lrfused
from lrfused import schedules as S
from lrfused.analysis import momentum_dynamics, stable_lr

momenta = st.floats(1e-6, 0.999) | st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99])
products = st.floats(1e-6, 10.0) | st.sampled_from([0.25, 1.0, 2.25])


def exact(a, b):
    """The roots and zeta by their definitions, in 50 digits; the larger magnitude first."""
    with mpmath.workdps(50):
        a, b = mpmath.mpf(a), mpmath.mpf(b)
        middle, root = (1 + b - a) / 2, mpmath.sqrt((1 + b - a) ** 2 / 4 - b)
        roots = sorted([middle + root, middle - root], key=lambda z: (-abs(z), -mpmath.im(z)))
        if any(z == 0 for z in roots):  # b = 0: the limits
            alternating = a > 1
            limit = mpmath.mpf(1) if a == 1 else mpmath.inf
        else:
            alternating = mpmath.im(roots[0]) == 0 and mpmath.re(roots[0]) < 0
        if alternating:
            rate = mpmath.log(abs(roots[0]))
            return roots, -rate / mpmath.sqrt(rate**2 + mpmath.pi**2)
        if b == 0:
            return roots, limit
        s1, s2 = (mpmath.log(z) for z in roots)
        return roots, -(s1 + s2).real / (2 * mpmath.sqrt((s1 * s2).real))


@given(a=products, b=momenta)
def test_roots_and_damping(a, b):
    found = momentum_dynamics(a, b, 1.0, 0)
    roots, zeta = exact(a, b)
    # A double root is as uncertain as the square root of a rounding.
    distance = max(float(abs(roots[0] - roots[1])), 3e-8)
    slack = (1 + a) * (1e-14 + 1e-15 / distance)
    for value, want in zip(found.roots, roots, strict=True):
        assert abs(value - complex(want)) <= slack
    assert found.spectral_radius == pytest.approx(float(abs(roots[0])), abs=slack)
    assert found.damping_ratio == pytest.approx(float(zeta), rel=1e-10, abs=slack)
    assert found.stable == (abs(roots[0]) < 1)


@given(zeta=st.floats(0.01, 0.99), omega=st.floats(0.05, 3.0))
def test_the_damping_ratio_of_a_sampled_oscillator(zeta, omega):
    """x'' + 2 zeta omega x' + omega**2 x = 0 at every step is this recurrence."""
    decay = math.exp(-zeta * omega)
    a = 1 + decay**2 - 2 * decay * math.cos(omega * math.sqrt(1 - zeta**2))
    found = momentum_dynamics(a, decay**2, 1.0, 0)
    assert found.damping_ratio == pytest.approx(zeta, rel=1e-9)
    assert found.spectral_radius == pytest.approx(decay, rel=1e-14)


@given(zeta=st.floats(1.01, 20.0), omega=st.floats(0.05, 1.0))
def test_the_damping_ratio_of_an_overdamped_one(zeta, omega):
    root = math.sqrt(zeta**2 - 1)
    slow, fast = (math.exp(-omega * (zeta - root)), math.exp(-omega * (zeta + root)))
    found = momentum_dynamics((1 - slow) * (1 - fast), slow * fast, 1.0, 0)
    assert found.damping_ratio == pytest.approx(zeta, rel=1e-8)
    assert found.roots == pytest.approx(np.array([slow, fast]), rel=1e-8)


@pytest.mark.parametrize("scale", [1e-4, 1e-8])
def test_small_steps_approach_the_continuous_formula(scale):
    b, a = 1.0 - scale, scale**2 * np.array([0.01, 0.2, 1.0, 30.0, 1e3])
    lr = S.table(a.tolist())
    found = momentum_dynamics(lr, b, 1.0, range(5)).damping_ratio
    assert found == pytest.approx((1 - b) / (2 * np.sqrt(a)), rel=100 * scale)
    assert found == pytest.approx([float(exact(value, b)[1]) for value in a], rel=1e-11)


def test_a_step_that_is_far_too_large():
    found = momentum_dynamics(1e200, 0.5, 1e100, 0)
    assert found.spectral_radius == pytest.approx(1e300) and not found.stable
    assert found.damping_ratio == pytest.approx(-1.0, rel=1e-4)


@pytest.mark.parametrize("b", [0.0, 0.3, 0.9, 0.999])
def test_stable_at_the_very_boundaries(b):
    def stable(lr):
        return bool(momentum_dynamics(lr, b, 1.0, 0).stable)

    limit = stable_lr(1.0, b)
    assert limit == 2 * (1 + b)
    assert stable(math.nextafter(limit, 0.0)) and not stable(limit)
    assert stable(5e-324) and not stable(0.0)


def test_the_first_step_is_the_default():
    lr, b = S.linear(0.125, 9.0, steps=10), S.linear(0.5, 0.9, steps=10)
    found = momentum_dynamics(lr, b, 2.0)
    assert found.roots.shape == (2,) and found.stable.shape == ()
    assert found.roots.prod() == pytest.approx(0.5) and found.roots.sum() == pytest.approx(1.25)


def test_no_step_no_damping():
    for b in (0.0, 0.9):
        found = momentum_dynamics(0.0, b, 3.0, 0)
        assert found.roots.tolist() == [1.0, b]
        assert (found.spectral_radius, found.damping_ratio) == (1.0, math.inf)


def test_over_a_warmup(rng):
    """Schedules and numbers give the same, step by step; arrays have the shape of the steps."""
    lr, b = S.warmup_constant(3.0, 20), S.linear(0.5, 0.95, 13)
    steps = rng.numpy.integers(0, 40, (4, 7))
    found = momentum_dynamics(lr, b, 1.5, steps)
    assert found.roots.shape == (4, 7, 2) and found.roots.dtype == np.complex128
    assert {x.shape for x in found[1:]} == {(4, 7)} and found.stable.dtype == bool
    for at, t in np.ndenumerate(steps):
        one = momentum_dynamics(lr(int(t)), b(int(t)), 1.5, int(t))
        assert all(np.array_equal(x[at], y) for x, y in zip(found, one, strict=True))
    assert all(len(x) == 0 for x in momentum_dynamics(lr, 0.9, 1.0, []))


def iterates(lr, momentum, curvature, steps, optimizer=lrfused.SGD):
    """x of gradient descent on curvature x**2 / 2 from x = 1, in float64."""
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    opt = optimizer([x], lr=lr if isinstance(lr, float) else 0.0, momentum=momentum)
    found = [1.0]
    for t in range(steps):
        if not isinstance(lr, float):
            opt.param_groups[0]["lr"] = lr(t)
        x.grad = curvature * x.detach()
        opt.step()
        found.append(x.item())
    return np.array(found)


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("fraction", [0.02, 0.6, 0.98, 1.02, 1.5])
def test_sgd_converges_where_stable_and_at_that_rate(rng, b, fraction):
    curvature = float(rng.numpy.uniform(0.1, 10))
    lr = fraction * stable_lr(curvature, b)
    x = iterates(lr, b, curvature, 400)
    found = momentum_dynamics(lr, b, curvature, 0)
    assert found.stable == (fraction < 1)
    rate = np.max(np.abs(x[350:])) / np.max(np.abs(x[250:301]))
    # Both windows are longer than half a period, unless the pair turns slower than that.
    assert rate ** (1 / 100) == pytest.approx(float(found.spectral_radius), rel=0.01)
    assert (rate < 1) == found.stable


def test_sgd_with_a_changing_lr(rng):
    """It follows the equation with b eta[t] / eta[t-1] in the place of b."""
    lr, b, curvature = S.linear(0.1, 1.9, 30), 0.8, float(rng.numpy.uniform(0.5, 1))
    for optimizer in (torch.optim.SGD, lrfused.SGD):
        x = iterates(lr, b, curvature, 40, optimizer)
        for t in range(1, 40):
            factor = b * lr(t) / lr(t - 1)
            want = (1 + factor - lr(t) * curvature) * x[t] - factor * x[t - 1]
            assert x[t + 1] == pytest.approx(want, rel=1e-12, abs=1e-13)
