"""Lion: documentation and arguments."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lrfused.optim.arguments import takes_step_options
from lrfused.optim.base import FusedOptimizer
from lrfused.rules import LION
from lrfused.settings.cells import Value

if TYPE_CHECKING:
    from lrfused.optim.arguments import StepOptions, Unpack


class Lion(FusedOptimizer):
    """Lion whose whole step is fused: unscale, check, clip, schedules, decay and update.

    Formula, for each parameter p with gradient g (unscaled and clipped as AdamW's):
        p  <- p * (1 - lr * weight_decay)
        p  <- p - lr * sign(beta1 * m + (1 - beta1) * g)           sign(0) = 0, sign(nan) = nan
        m  <- beta2 * m + (1 - beta2) * g
    with every hyperparameter that is a Schedule evaluated at the number of completed steps.

    Args:
        params: parameters, (name, parameter) pairs or dictionaries of groups, as in torch.
        lr: learning rate, a number >= 0, a one-element Tensor or a Schedule; a third to a tenth of
            AdamW's is usual.
        betas: beta1 and beta2 in [0, 1), numbers, Tensors or Schedules.
        weight_decay: decoupled decay, >= 0, a number, Tensor or Schedule; three to ten times
            AdamW's is usual.
        maximize: ascend the gradient instead of descending.
        weight_decay_mode: "lr", "independent" or "lr_ratio", as AdamW's; may be set in a group.
        options: those of every optimizer, see :class:`lrfused.FusedOptimizer`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of its range.
        RuntimeError: the backend is not available.

    Example:
        >>> import torch, lrfused
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> weight.grad = torch.tensor([0.1, 0.0, -5.0])
        >>> opt = lrfused.Lion([weight], lr=0.25)
        >>> opt.step()
        >>> weight.tolist()
        [0.75, 1.0, 1.25]

    Source: Chen et al., Symbolic Discovery of Optimization Algorithms, arXiv 2302.06675.
    """

    rule = LION

    @takes_step_options
    def __init__(
        self,
        params: Iterable[Any],
        lr: Value = 1e-4,
        betas: tuple[Value, Value] = (0.9, 0.99),
        weight_decay: Value = 0.0,
        *,
        maximize: bool = False,
        weight_decay_mode: str = "lr",
        **options: "Unpack[StepOptions]",
    ):
        self._start(
            params,
            {"lr": lr, "betas": betas, "weight_decay": weight_decay},
            {"maximize": maximize},
            {"weight_decay_mode": weight_decay_mode},
            {},
            None,
            options,
        )
