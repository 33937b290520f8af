"""A torch scheduler's copy, stepped to see what the installed torch sets."""

import copy
import warnings
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lrfused.schedules.expression import Schedule
from lrfused.schedules.leaves import table


class _Optimizer:
    """What a scheduler needs of its optimizer: groups of its own, without the parameters."""

    def __init__(self, optimizer: Optimizer, memo: dict[int, Any]):
        self.param_groups = [
            {name: memo.get(id(value), value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        self.defaults = optimizer.defaults
        # Schedulers warn where these say that the optimizer was not stepped before them.
        self._opt_called = True
        self.step = lambda: None
        self.step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


def _copied(scheduler: Any) -> Any:
    """A scheduler with an optimizer of its own; parameters are not worth copying.

    Tensors that the original shares with its groups (older torch shares base lrs) the copy shares.
    """
    groups = scheduler.optimizer.param_groups
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for group in groups
        for value in group.values()
        if isinstance(value, Tensor)
    }
    memo[id(scheduler.optimizer)] = _Optimizer(scheduler.optimizer, memo)
    # A function of the step may hold on to parameters.
    memo |= {id(p): p for group in groups for p in group["params"]}
    return copy.deepcopy(scheduler, memo)


def rows(scheduler: Any, steps: int, what: str) -> list[list[float]]:
    """What a copy sets in the groups at the steps from 0 to ``steps``.

    Raises:
        ValueError: torch's own arithmetic fails on the way.
    """
    scheduler = _copied(scheduler)
    found = [_values(scheduler.optimizer, what)]
    with warnings.catch_warnings():
        # SequentialLR of torch 2.8 uses what it deprecates itself.
        warnings.filterwarnings("ignore", "The epoch parameter in", UserWarning)
        for step in range(1, steps + 1):
            try:
                scheduler.step()
            except ZeroDivisionError:
                name = type(scheduler).__name__
                raise ValueError(
                    f"scheduler: torch's own {name} divides by zero at step {step}"
                ) from None
            found.append(_values(scheduler.optimizer, what))
    return found


def sampled(scheduler: Any, steps: int, what: str) -> list[Schedule]:
    """Tables of what a copy sets when it is stepped, one a group."""
    return [table(column) for column in zip(*rows(scheduler, steps, what), strict=True)]


def _values(optimizer: _Optimizer, what: str) -> list[float]:
    if what == "lr":
        return [float(group["lr"]) for group in optimizer.param_groups]
    return [
        float(group["betas"][0] if "betas" in group else group["momentum"])
        for group in optimizer.param_groups
    ]
