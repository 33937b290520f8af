"""Heavy-ball momentum on a quadratic as a difference equation: its roots, damping and stability."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrfused.schedules.check import finite, positive
from lrfused.schedules.expression import Schedule, as_schedule


class MomentumDynamics(NamedTuple):
    """What :func:`momentum_dynamics` returns, step by step; shapes begin with that of ``steps``."""

    roots: NDArray[np.complex128]  # (..., 2), the larger magnitude first, of a pair +imag first
    spectral_radius: NDArray[np.float64]  # the larger magnitude of the two roots
    damping_ratio: NDArray[np.float64]  # zeta
    stable: NDArray[np.bool_]  # both roots are inside the unit circle


def momentum_dynamics(
    schedule: Schedule | float, momentum: Schedule | float, curvature: float, steps: ArrayLike = 0
) -> MomentumDynamics:
    """The characteristic roots, damping ratio and stability of heavy-ball momentum, step by step.

    Along an eigenvector of the Hessian with eigenvalue lambda, the distance x from the minimum
    follows x[t+1] = (1 + b - eta lambda) x[t] - b x[t-1]. The results of a step are those of this
    equation with the lr eta and the momentum b of that step, as if they stayed. It is the rule
    v = b v - eta g, x = x + v. SGD in torch and lrfused multiplies the velocity by the lr instead
    (v = b v + g, x = x - eta v). The two are the same while the lr is constant. Where it changes by
    a small share from step to step, as in most schedules after their first steps, the results are
    close to SGD's; in the first steps of a warmup SGD has more momentum than b.

    Formula:
        a = eta lambda; z1, z2 = the roots of z**2 - (1 + b - a) z + b, with |z1| >= |z2|
        stable = (0 < a < 2 (1 + b)), which is |z1| < 1
        damping ratio:
        -log(z1 z2) / (2 sqrt(log(z1) log(z2)))       for a <= (1 - sqrt(b))**2; the roots are
                                                      positive, zeta >= 1: overdamped
        the same, with log(b) = log(z1 z2):           for a < (1 + sqrt(b))**2; the roots are
        -log(b) / (2 |log(z1)|)                       conjugate, 0 < zeta < 1: underdamped
        -log|z1| / sqrt(log|z1|**2 + pi**2)           for larger a; the roots are negative, x
                                                      alternates in sign; unstable where zeta <= 0
        limits: inf where a = 0, or b = 0 and a < 1; 1 where b = 0 and a = 1
        (The first two are the ratio of the oscillator x'' + 2 zeta omega x' + omega**2 x = 0, of
        which x is a sample at each step: for b near 1, zeta is about (1 - b) / (2 sqrt(a)).)

    Args:
        schedule: the lr, a Schedule or a number, >= 0 at these steps.
        momentum: a Schedule or a number, in [0, 1) at these steps.
        curvature: the eigenvalue lambda, finite, > 0.
        steps: counts of completed updates, integers of any shape, as for ``Schedule.values``;
            default 0, the first update alone (enough for numbers that are no schedules).

    Returns:
        Arrays: ``roots`` (complex128, of the shape of steps and 2), ``spectral_radius`` and
        ``damping_ratio`` (float64), ``stable`` (bool).

    Raises:
        TypeError: an argument is not a number (or Schedule), or steps are not integers.
        ValueError: an argument is out of its range; of a schedule the step is named.

    Example:
        >>> from lrfused import analysis, schedules
        >>> lr = schedules.warmup_constant(0.5, warmup_steps=4)
        >>> found = analysis.momentum_dynamics(lr, 0.81, curvature=8.0, steps=range(5))
        >>> found.stable.tolist()
        [False, True, True, True, False]
        >>> [round(zeta, 3) for zeta in found.damping_ratio.tolist()]
        [inf, 0.095, 0.063, 0.046, -0.17]
        >>> bool(analysis.momentum_dynamics(0.25, 0.81, 8.0).stable)
        True

    Source: Polyak, Some methods of speeding up the convergence of iteration methods, 1964; Goh, Why
    Momentum Really Works, Distill, 2017 (roots and regimes).
    """
    lr = _values("schedule", schedule, steps)
    b = _values("momentum", momentum, steps)
    _expect("schedule", lr, steps, np.isfinite(lr) & (lr >= 0.0), "must be finite and >= 0")
    _expect("momentum", b, steps, (b >= 0.0) & (b < 1.0), "must be in [0, 1)")
    with np.errstate(over="ignore"):
        a = lr * positive("curvature", curvature)
    _expect("schedule * curvature", a, steps, np.isfinite(a), "must be finite")
    roots, rate = _roots(a, b)
    return MomentumDynamics(
        roots,
        np.where(roots[..., 0].imag > 0.0, np.sqrt(b), np.abs(roots[..., 0])),
        _damping_ratio(roots, rate, b),
        (a > 0.0) & (a < 2.0 * (1.0 + b)),
    )


def stable_lr(curvature: float, momentum: float = 0.0) -> float:
    """The lr at which gradient descent with heavy-ball momentum begins to diverge.

    Formula:
        2 (1 + momentum) / curvature
        (a constant lr converges on a quadratic if it is greater than 0 and less than this)

    Args:
        curvature: the largest eigenvalue of the Hessian, finite, > 0.
        momentum: of SGD, without dampening and not Nesterov's, in [0, 1).

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of its range, or the lr is beyond float64.

    Example:
        >>> from lrfused import analysis
        >>> analysis.stable_lr(curvature=8.0), analysis.stable_lr(8.0, momentum=0.5)
        (0.25, 0.375)
        >>> min(0.1 * 32, analysis.stable_lr(8.0, 0.5))  # the linear rule for 32 times the batch
        0.375

    Source: Polyak, Some methods of speeding up the convergence of iteration methods, 1964;
    Cohen et al., Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability,
    arXiv 2103.00065.
    """
    momentum = finite("momentum", momentum)
    if not 0.0 <= momentum < 1.0:
        raise ValueError(f"momentum: must be in [0, 1), got {momentum}")
    lr = 2.0 * (1.0 + momentum) / positive("curvature", curvature)
    if not math.isfinite(lr):
        raise ValueError(f"curvature: must be so large that the lr is finite, got {curvature}")
    return lr


def _values(name: str, value: Schedule | float, steps: ArrayLike) -> NDArray[np.float64]:
    schedule = value if isinstance(value, Schedule) else as_schedule(finite(name, value))
    return schedule.values(steps)


def _expect(
    name: str, values: NDArray[np.float64], steps: ArrayLike, good: NDArray[np.bool_], rule: str
) -> None:
    if not good.all():
        i = np.flatnonzero(~good)[0]
        raise ValueError(
            f"{name}: {rule}, got {values.flat[i]} at step {np.asarray(steps).flat[i]}"
        )


def _roots(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """The roots, and log(z1) where both are positive (0 elsewhere), accurate for z1 near 1 too."""
    low = ((1.0 - b) / (1.0 + np.sqrt(b))) ** 2  # (1 - sqrt(b))**2, without cancellation
    high = (1.0 + np.sqrt(b)) ** 2
    # Factor by factor: the discriminant (a - low) (a - high) could overflow.
    half_root = 0.5 * np.sqrt(np.abs(a - low)) * np.sqrt(np.abs(a - high))
    conjugate = (low < a) & (a < high)
    away = np.where(a <= low, a / (0.5 * (1.0 - b + a) + half_root), 0.0)  # 1 - z1
    real = 0.5 * (1.0 + b - a) - np.where(conjugate, 0.0, half_root)
    first = np.where(a <= low, 1.0 - away, real) + 1j * np.where(conjugate, half_root, 0.0)
    divisor = np.where(first == 0.0, 1.0, first)  # both roots are 0 where a = 1, b = 0
    second = np.where(conjugate, first.conj(), b / divisor)
    with np.errstate(divide="ignore"):
        return np.stack([first, second], axis=-1), np.log1p(-away)


def _damping_ratio(
    roots: NDArray[np.complex128], rate: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """zeta by cases; ``rate`` is log(z1) where both roots are positive."""
    first = roots[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        half = 0.5 * np.log(b)
        underdamped = -half / np.hypot(half, np.angle(first))
        growth = np.log(np.abs(first))
        alternating = -growth / np.hypot(growth, np.pi)
        # The ratio of log(z1) to log(z2), from which -log(z1 z2) / (2 sqrt(log(z1) log(z2))).
        share = np.sqrt(rate / (np.log(b) - rate))
        overdamped = np.maximum(0.5 * (share + 1.0 / share), 1.0)
    overdamped = np.where(first == 0.0, 1.0, overdamped)
    return np.where(
        first.imag > 0.0, underdamped, np.where(first.real < 0.0, alternating, overdamped)
    )
