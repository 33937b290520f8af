"""SGD: documentation and arguments."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from lrfused.optim.arguments import takes_step_options
from lrfused.optim.base import FusedOptimizer
from lrfused.rules import SGD as RULE
from lrfused.settings.cells import Value

if TYPE_CHECKING:
    from lrfused.optim.arguments import StepOptions, Unpack


class SGD(FusedOptimizer, torch.optim.SGD):
    """SGD with momentum whose whole step is fused: unscale, check, clip, schedules and update.

    Formula, for each parameter p with gradient g (unscaled and clipped as AdamW's):
        g  <- g + weight_decay * p                                 weight_decay_mode "l2"
        p  <- p * (1 - lr * weight_decay)                          "lr", and so on
        b  <- g                                                    the first update with momentum
              momentum * b + (1 - dampening) * g                   the others
        p  <- p - lr * g                                           while momentum is 0
              p - lr * b                                           with momentum
              p - lr * (g + momentum * b)                          with momentum and nesterov
    with every hyperparameter that is a Schedule evaluated at the number of completed steps.

    It is a ``torch.optim.SGD``: same arguments, defaults, ``param_groups`` and ``state_dict``.
    torch.optim.SGD stores no counts of updates: after loading its checkpoint into an optimizer with
    schedules, call :meth:`set_step` with the number of completed steps.

    Args:
        params: parameters, (name, parameter) pairs or dictionaries of groups, as in torch.
        lr: learning rate, a number >= 0, a one-element Tensor or a Schedule.
        momentum: >= 0, a number, Tensor or Schedule. The buffer b exists unless it is the number 0;
            while its value is 0, b is unchanged.
        dampening: a number, Tensor or Schedule.
        weight_decay: >= 0, a number, Tensor or Schedule.
        nesterov: needs a momentum greater than 0 and a dampening of 0 at every step.
        maximize: as in torch.
        foreach, fused: accepted for compatibility; the step is always fused.
        differentiable: must be False.
        weight_decay_mode: "l2" (torch: added to the gradient), or decoupled: "lr"
            (1 - lr * weight_decay), "independent" (1 - weight_decay) or "lr_ratio"
            (1 - weight_decay * lr / peak_lr). It may also be set in a group.
        options: those of every optimizer, see :class:`lrfused.FusedOptimizer`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of its range.
        RuntimeError: the backend is not available.

    Example:
        >>> import torch, lrfused
        >>> from lrfused import schedules
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> lr = schedules.linear(0.5, 0.25, steps=2)
        >>> opt = lrfused.SGD([weight], lr=lr, momentum=0.5)
        >>> for _ in range(2):
        ...     weight.grad = torch.ones(2)
        ...     opt.step()
        >>> weight.tolist()  # 1 - 0.5 * 1 - 0.375 * 1.5
        [-0.0625, -0.0625]

    Source: torch.optim.SGD; Sutskever et al., On the importance of initialization and momentum in
    deep learning, ICML 2013.
    """

    rule = RULE

    @takes_step_options
    def __init__(
        self,
        params: Iterable[Any],
        lr: Value = 1e-3,
        momentum: Value = 0,
        dampening: Value = 0,
        weight_decay: Value = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        weight_decay_mode: str = "l2",
        **options: "Unpack[StepOptions]",
    ):
        self._start(
            params,
            {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay},
            {"nesterov": nesterov, "maximize": maximize},
            {"weight_decay_mode": weight_decay_mode},
            {"foreach": foreach, "differentiable": differentiable},
            fused,
            options,
        )
