"""The Hessian of a loss as an operator: products with vectors by double backward."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


class Hessian:
    """Products H v of one loss at the present values of its parameters.

    Vectors are flat, float64 and on the first parameter's device: the parameters one after the
    other. The gradient's graph is kept as long as this object is, so a product is one backward.
    """

    def __init__(self, loss: Tensor | Callable[[], Tensor], params: Tensor | Iterable[Tensor]):
        self.params = _checked_params(params)
        self.size = sum(p.numel() for p in self.params)
        if self.size == 0:
            raise ValueError("params: must contain at least one element, all are empty")
        self.device = self.params[0].device
        with torch.enable_grad():
            value = _checked_loss(loss() if callable(loss) else loss)
            gradients = _differentiate([value], self.params, create_graph=True)
        # None where the gradient is constant (or there is none): that row of the Hessian is 0.
        self._gradients = [g if g is not None and g.requires_grad else None for g in gradients]
        _refuse_missing_derivatives([g for g in self._gradients if g is not None])

    def multiply(self, vector: Tensor) -> Tensor:
        """H v.

        Raises:
            ValueError: the product is not finite.
        """
        pairs = [
            (g, v.to(g))
            for g, v in zip(self._gradients, self.split(vector), strict=True)
            if g is not None
        ]
        rows: list[Tensor | None] = [None] * len(self.params)
        if pairs:
            gradients, directions = zip(*pairs, strict=True)
            rows = _differentiate(gradients, self.params, directions)
        product = torch.cat(
            [
                torch.zeros(p.numel(), dtype=torch.float64, device=self.device)
                if row is None
                else row.detach().to(self.device, torch.float64).reshape(-1)
                for p, row in zip(self.params, rows, strict=True)
            ]
        )
        if not bool(product.isfinite().all()):
            raise ValueError(
                "loss: must have finite second derivatives, got a Hessian-vector product with inf "
                "or nan"
            )
        return product

    def split(self, vector: Tensor) -> list[Tensor]:
        """A flat vector as tensors like the parameters: their shapes and devices, float64."""
        pieces = torch.split(vector, [p.numel() for p in self.params])
        return [
            piece.view(p.shape).to(p.device) for piece, p in zip(pieces, self.params, strict=True)
        ]


def _differentiate(
    outputs: Sequence[Tensor],
    params: Sequence[Tensor],
    directions: Sequence[Tensor] | None = None,
    create_graph: bool = False,
) -> list[Tensor | None]:
    try:
        found = torch.autograd.grad(
            outputs,
            params,
            directions,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
    except RuntimeError as error:
        raise RuntimeError(
            "loss: must be twice differentiable by torch.autograd, and a function must not call "
            f"backward(); torch says: {error}"
        ) from error
    return [None if g is None else g.to_dense() for g in found]


def _refuse_missing_derivatives(gradients: Sequence[Tensor]) -> None:
    """Whatever is behind ``once_differentiable``: torch would count its derivative as 0."""
    waiting = {g.grad_fn for g in gradients}
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if node.name() == "torch::autograd::Error":
            raise RuntimeError(
                "loss: must be twice differentiable by torch.autograd, but one of its functions is "
                "marked with once_differentiable"
            )
        found = {following for following, _ in node.next_functions} - seen
        seen |= found
        waiting |= found


def _checked_params(params: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if not isinstance(params, (Tensor, Iterable)):
        raise TypeError(f"params: must be tensors, got {type(params).__name__}")
    tensors = [params] if isinstance(params, Tensor) else list(params)
    if not tensors:
        raise ValueError("params: must not be empty")
    seen: dict[int, int] = {}
    for i, p in enumerate(tensors):
        if not isinstance(p, Tensor):
            raise TypeError(f"params[{i}]: must be a torch.Tensor, got {type(p).__name__}")
        if not p.dtype.is_floating_point:
            raise TypeError(f"params[{i}]: must be real and floating-point, got {p.dtype}")
        if not p.requires_grad:
            raise ValueError(f"params[{i}]: must require grad, but requires_grad is False")
        if id(p) in seen:
            raise ValueError(f"params[{i}]: must differ from all others, got params[{seen[id(p)]}]")
        seen[id(p)] = i
    return tensors


def _checked_loss(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"loss: must be a tensor or a function that returns one, got {type(value).__name__}"
        )
    if value.numel() != 1 or not value.dtype.is_floating_point:
        raise ValueError(
            f"loss: must be a real scalar, got shape {tuple(value.shape)}, {value.dtype}"
        )
    if not value.requires_grad:
        raise ValueError("loss: must require grad, but it does not depend on a tensor that does")
    if not bool(value.detach().isfinite()):
        raise ValueError(f"loss: must be finite, got {value.item()}")
    return value
