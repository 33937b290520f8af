"""Curvature and stability: what a learning rate has to respect, measured or from formulas."""

from lrfused.analysis.bound import hessian_bound
from lrfused.analysis.eigenvalue import Eigenvalue, largest_eigenvalue
from lrfused.analysis.momentum import MomentumDynamics, momentum_dynamics, stable_lr

__all__ = [
    "Eigenvalue",
    "MomentumDynamics",
    "hessian_bound",
    "largest_eigenvalue",
    "momentum_dynamics",
    "stable_lr",
]
