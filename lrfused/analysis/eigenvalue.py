"""The largest eigenvalue of a loss's Hessian, the sharpness."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from lrfused.analysis.hessian import Hessian
from lrfused.analysis.lanczos import largest_ritz_pair
from lrfused.schedules.check import positive, whole


class Eigenvalue(NamedTuple):
    """What :func:`largest_eigenvalue` returns."""

    value: float  # lambda
    residual: float  # |H v - lambda v|: some eigenvalue of H is at most this far from value
    iterations: int  # Hessian-vector products that were computed
    converged: bool  # the residual is at most tolerance * |value|, or that of float64's rounding
    vector: list[Tensor]  # v: float64, shaped like the parameters, of norm 1 over all of them


def largest_eigenvalue(
    loss: Callable[[], Tensor] | Tensor,
    params: Tensor | Iterable[Tensor],
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
    basis_size: int = 20,
    generator: torch.Generator | None = None,
) -> Eigenvalue:
    """The algebraically largest eigenvalue of the Hessian of a loss, by the Lanczos method.

    Only Hessian-vector products are used, one backward through the gradient each. The largest
    means not of largest magnitude: if all are negative, so is the result. (The smallest is the
    negative of the largest of ``-loss``.)

    The loss is evaluated once. Weights, ``.grad``, the global random generators and a graph that
    is passed stay as they are; what the function ``loss`` itself does remains done (a model in
    train mode updates the running statistics of its batch norms and draws its dropout).

    Formula:
        v = argmax over the Krylov space of v' H v / v' v, from a normal random start
        until |H v - lambda v| <= max(tolerance * |lambda|, 16 eps * scale)       (converged)
        eps = 2**-52; scale = the largest |eigenvalue| of H in that space
        (By symmetry some eigenvalue is within the residual of lambda, so with its sign where that
        is more than rounding. lambda is never greater than the largest; that it is the largest and
        not the next one is very likely, not certain. Where the largest is much smaller than scale,
        as the smallest often is by ``-loss``, convergence takes more products and more precision:
        float32 weights have products to about 1e-7 * scale.)

    Args:
        loss: a function without arguments that returns the scalar loss and does not call backward,
            or the scalar itself with its graph (which is retained).
        params: the tensors (one, or any iterable of them) that the Hessian is taken with respect
            to: real, floating-point, requiring grad, of any shapes, dtypes and devices. Parameters
            that the loss does not depend on are rows of zeros. Products have the parameters'
            precision: with 16-bit weights the residual stays near 1e-2 of the eigenvalue.
        tolerance: of the residual, relative to the eigenvalue, > 0.
        max_iterations: most products, >= 1, the last of which tells the residual; if they are used
            up before, ``converged`` is False.
        basis_size: vectors after which the method restarts, >= 2. Memory is about 8 bytes times
            (this + 16) for each element of params, beside the graph of the gradient.
        generator: draws the start; default a CPU generator with seed 0.

    Returns:
        Eigenvalue(value, residual, iterations, converged, vector).

    Raises:
        TypeError: an argument is of the wrong type, or a parameter is an integer or complex.
        ValueError: an argument is out of its range; params are empty, given twice or do not
            require grad; the loss is no finite scalar with a graph; a product is not finite.
        RuntimeError: torch cannot differentiate the loss twice. Some fused operators cannot be: for
            attention use ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``. (A custom function
            whose backward hides its operations from autograd, without ``once_differentiable``,
            counts as linear; torch does not notice.)

    Example:
        >>> import torch
        >>> from lrfused import analysis
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> found = analysis.largest_eigenvalue(lambda: w[0] ** 2 + 3 * w[1] ** 2, [w])
        >>> round(found.value, 5), found.iterations
        (6.0, 3)

    Source: Pearlmutter, Fast Exact Multiplication by the Hessian, 1994; Wu and Simon, Thick-Restart
    Lanczos Method for Large Symmetric Eigenvalue Problems, 2000.
    """
    tolerance = positive("tolerance", tolerance)
    max_iterations = whole("max_iterations", max_iterations, minimum=1)
    basis_size = whole("basis_size", basis_size, minimum=2)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    elif not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: must be a torch.Generator, got {type(generator).__name__}")
    with torch.inference_mode(False), torch.no_grad():
        hessian = Hessian(loss, params)
        start = torch.randn(
            hessian.size, generator=generator, dtype=torch.float64, device=generator.device
        ).to(hessian.device)
        found = largest_ritz_pair(hessian.multiply, start, tolerance, max_iterations, basis_size)
        vector = hessian.split(found.vector)
    return Eigenvalue(found.value, found.residual, found.products, found.converged, vector)
