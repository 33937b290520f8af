"""AdamW: documentation and arguments."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from lrfused.optim.arguments import takes_step_options
from lrfused.optim.base import FusedOptimizer
from lrfused.rules import ADAMW
from lrfused.settings.cells import Value

if TYPE_CHECKING:
    from lrfused.optim.arguments import StepOptions, Unpack


class AdamW(FusedOptimizer, torch.optim.AdamW):
    """AdamW whose whole step is fused: unscale, check, clip, schedules, decay and update.

    Formula, for each parameter p with gradient g, after t - 1 updates of it:
        g  <- g / (loss scale * accumulation_steps), value clip, adaptive clip,
              times min(1, max_grad_norm / (norm of all g + 1e-6))
        p  <- p * (1 - lr * weight_decay)
        m  <- beta1 * m + (1 - beta1) * g
        v  <- beta2 * v + (1 - beta2) * g**2
        p  <- p - lr / (1 - beta1**t) * m / (sqrt(v) / sqrt(1 - beta2**t) + eps)
    with every hyperparameter that is a Schedule evaluated at the number of completed steps.

    It is a ``torch.optim.AdamW``: same arguments, defaults, ``param_groups`` and ``state_dict``.

    Args:
        params: parameters, (name, parameter) pairs or dictionaries of groups, as in torch.
        lr: learning rate, a number >= 0, a one-element Tensor or a Schedule.
        betas: decay rates of the moments in [0, 1), numbers, Tensors or Schedules.
        eps: added to the denominator, >= 0, a number, Tensor or Schedule.
        weight_decay: decoupled decay, >= 0, a number, Tensor or Schedule.
        amsgrad, maximize: as in torch.
        foreach, capturable, fused: accepted for compatibility; the step is always fused.
        differentiable: must be False.
        weight_decay_mode: "lr" (torch: 1 - lr * weight_decay), "independent"
            (1 - weight_decay) or "lr_ratio" (1 - weight_decay * lr / peak_lr).
        bias_correction: "power" (torch: 1 - beta**t) or "product" (1 minus the product of the
            betas that were used, right for scheduled betas).
        options: those of every optimizer, see :class:`lrfused.FusedOptimizer`.

    weight_decay_mode and bias_correction may also be set in a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of its range.
        RuntimeError: the backend is not available.

    Example:
        >>> import torch, lrfused
        >>> from lrfused import schedules
        >>> model = torch.nn.Linear(4, 2)
        >>> lr = schedules.warmup_cosine(1e-3, warmup_steps=10, total_steps=100)
        >>> opt = lrfused.AdamW(model.parameters(), lr=lr, max_grad_norm=1.0)
        >>> for _ in range(3):
        ...     opt.zero_grad()
        ...     model(torch.randn(8, 4)).square().mean().backward()
        ...     opt.step()
        >>> opt.metrics()["steps"], opt.metrics()["lr"]
        (3, [0.0002])

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101;
    torch.optim.AdamW.
    """

    rule = ADAMW

    @takes_step_options
    def __init__(
        self,
        params: Iterable[Any],
        lr: Value = 1e-3,
        betas: tuple[Value, Value] = (0.9, 0.999),
        eps: Value = 1e-8,
        weight_decay: Value = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        weight_decay_mode: str = "lr",
        bias_correction: str = "power",
        **options: "Unpack[StepOptions]",
    ):
        self._start(
            params,
            {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay},
            {"amsgrad": amsgrad, "maximize": maximize},
            {"weight_decay_mode": weight_decay_mode, "bias_correction": bias_correction},
            {"foreach": foreach, "capturable": capturable, "differentiable": differentiable},
            fused,
            options,
        )
