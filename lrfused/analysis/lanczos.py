"""The largest eigenvalue of a symmetric operator by the Lanczos method."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LOST = 1e-8  # a direction that loses this much to the basis is rounding: the space is invariant
ROUNDING = 16 * torch.finfo(torch.float64).eps  # of a residual, times the largest |Ritz value|
COLUMNS = 2**16  # of the basis that a restart rotates at once


class RitzPair(NamedTuple):
    """An approximate eigenpair, and how well it satisfies its equation."""

    value: float
    vector: Tensor  # of norm 1
    residual: float  # |A vector - value vector|
    products: int  # products with A that were computed
    converged: bool


class _Operator:
    """Counts the products; divides them by a power of two, so that their squares are in range."""

    def __init__(self, multiply: Callable[[Tensor], Tensor]):
        self._multiply, self.products, self.unit = multiply, 0, 0.0

    def __call__(self, vector: Tensor) -> Tensor:
        product = self._multiply(vector)
        self.products += 1
        if self.unit == 0.0:
            largest = product.abs().max().item()
            self.unit = math.ldexp(0.5, math.frexp(largest)[1]) if largest > 0.0 else 0.0
        return product / self.unit if self.unit else product


def largest_ritz_pair(
    multiply: Callable[[Tensor], Tensor],
    start: Tensor,
    tolerance: float,
    max_products: int,
    basis_size: int,
) -> RitzPair:
    """Lanczos with full orthogonalisation and thick restarts.

    The estimate of the residual comes with the recurrence. Where it is small enough, or products
    run out, one more product gives the residual itself: only that decides about convergence, as a
    product may be only approximately symmetric (it is computed in float32, say). Converged is a
    residual of at most ``tolerance`` times |value|, or of float64's rounding at the largest |Ritz
    value|.
    """
    size = start.numel()
    basis = start.new_empty(min(basis_size, size), size)
    projected = start.new_zeros(len(basis), len(basis))
    operator, filled, scale = _Operator(multiply), 0, 0.0
    vector = direction = start / torch.linalg.vector_norm(start)
    while operator.products < max_products - 1:
        basis[filled] = direction
        filled += 1
        known, image = basis[:filled], operator(direction)
        projected[filled - 1, :filled] = known @ image  # eigh reads the lower triangle
        values, weights = torch.linalg.eigh(projected[:filled, :filled])  # ascending
        vector = weights[:, -1] @ known
        image = image - projected[filled - 1, :filled] @ known
        outside = torch.linalg.vector_norm(image).item()
        scale = max(scale, values.abs().max().item())
        estimate = outside * abs(weights[-1, -1].item())
        next_direction = _orthogonal(image / outside, known) if outside > 0.0 else None
        if next_direction is None or _is_small(estimate, values[-1].item(), scale, tolerance):
            pair = _checked_pair(operator, vector, scale, tolerance)
            if pair.converged or next_direction is None or pair.products == max_products:
                return pair
        direction = next_direction
        if filled == len(basis):
            filled = (filled + 1) // 2
            _rotate(basis, weights[:, -filled:])
            projected[:filled, :filled] = values[-filled:].diag()
    return _checked_pair(operator, vector, scale, tolerance)


def _is_small(residual: float, value: float, scale: float, tolerance: float) -> bool:
    return residual <= max(tolerance * abs(value), ROUNDING * scale)


def _checked_pair(operator: _Operator, vector: Tensor, scale: float, tolerance: float) -> RitzPair:
    """The pair of a vector, by a product with it."""
    image = operator(vector)
    value = torch.dot(vector, image).item()
    residual = torch.linalg.vector_norm(image - value * vector).item()
    converged = _is_small(residual, value, scale, tolerance)
    unit = operator.unit or 1.0
    return RitzPair(value * unit, vector, residual * unit, operator.products, converged)


def _rotate(basis: Tensor, weights: Tensor) -> None:
    """The first rows become the combinations of all rows; in place, part by part."""
    for columns in torch.split(basis, COLUMNS, dim=1):
        columns[: weights.shape[1]] = weights.T @ columns


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor | None:
    """The part of a unit vector that is orthogonal to a basis, of norm 1; None if there is none."""
    for _ in range(2):  # the second time removes what rounding left
        vector = vector - (basis @ vector) @ basis
        norm = torch.linalg.vector_norm(vector)
        if norm.item() < LOST:
            return None
        vector = vector / norm
    return vector
