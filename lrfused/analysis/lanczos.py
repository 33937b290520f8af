"""The largest eigenvalue of a symmetric operator by the Lanczos method."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LOST = 1e-8  # a direction that loses this much to the basis is rounding: the space is invariant


class RitzPair(NamedTuple):
    """An approximate eigenpair, and how well it satisfies its equation."""

    value: float
    vector: Tensor  # of norm 1
    residual: float  # |A vector - value vector|
    products: int  # products with A that were computed
    converged: bool


def largest_ritz_pair(
    multiply: Callable[[Tensor], Tensor],
    start: Tensor,
    tolerance: float,
    max_products: int,
    basis_size: int,
) -> RitzPair:
    """Lanczos with full orthogonalisation and thick restarts.

    The products A v of the basis are kept beside it. So the residual is that of the returned pair
    and not an estimate, and a product that is only approximately symmetric (it is computed in
    float32, say) does not disturb the orthogonality. Stops when the residual is at most
    ``tolerance`` times the largest magnitude of a Ritz value, or the space is invariant.
    """
    size = start.numel()
    basis = start.new_empty(min(basis_size, size), size)
    images = torch.empty_like(basis)
    direction, filled, scale = start / torch.linalg.vector_norm(start), 0, 0.0
    for products in range(1, max_products + 1):
        basis[filled], images[filled] = direction, multiply(direction)
        filled += 1
        known, mapped = basis[:filled], images[:filled]
        projected = known @ mapped.T
        values, weights = torch.linalg.eigh(0.5 * (projected + projected.T))  # ascending
        value, vector = values[-1].item(), weights[:, -1] @ known
        remainder = weights[:, -1] @ mapped - value * vector
        residual = torch.linalg.vector_norm(remainder).item()
        scale = max(scale, values.abs().max().item())
        if residual <= tolerance * scale:
            return RitzPair(value, vector, residual, products, True)
        next_direction = _orthogonal(remainder / residual, known)
        if next_direction is None:
            break
        direction = next_direction
        if filled == len(basis):
            filled = max(filled // 2, 1)
            basis[:filled] = weights[:, -filled:].T @ known
            images[:filled] = weights[:, -filled:].T @ mapped
    return RitzPair(value, vector, residual, products, False)


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor | None:
    """The part of a unit vector that is orthogonal to a basis, of norm 1; None if there is none."""
    for _ in range(2):  # the second time removes what rounding left
        vector = vector - (basis @ vector) @ basis
        norm = torch.linalg.vector_norm(vector)
        if norm.item() < LOST:
            return None
        vector = vector / norm
    return vector
