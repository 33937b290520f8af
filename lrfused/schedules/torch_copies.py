"""Samples a torch scheduler: a copy is stepped to see what the installed torch sets."""

import copy
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from lrfused.schedules.expression import Schedule
from lrfused.schedules.leaves import table


class _Optimizer:
    """The part of an optimizer that a scheduler needs: own groups, without the parameters."""

    def __init__(self, optimizer: Optimizer, memo: dict[int, Any]):
        self.param_groups = [
            {name: memo.get(id(value), value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        self.defaults = optimizer.defaults
        # Without these, schedulers warn that the optimizer was not stepped before them.
        self._opt_called = True
        self.step = lambda: None
        self.step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


def copied(scheduler: Any) -> Any:
    """A copy of a scheduler with its own optimizer; parameters are not copied.

    Tensors that the original shares with its groups (older torch shares base lrs) are shared in the
    copy, too.
    """
    groups = scheduler.optimizer.param_groups
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for group in groups
        for value in group.values()
        if isinstance(value, Tensor)
    }
    memo[id(scheduler.optimizer)] = _Optimizer(scheduler.optimizer, memo)
    # A LambdaLR's function, for one, may hold references to parameters.
    memo |= {id(p): p for group in groups for p in group["params"]}
    return copy.deepcopy(scheduler, memo)


def rows(scheduler: Any, steps: int, what: str) -> NDArray[np.float64]:
    """The values that a copy sets at steps 0 to ``steps``: a row a step, a column a group.

    Raises:
        ValueError: torch's own arithmetic fails at some step.
    """
    scheduler = copied(scheduler)
    found = np.empty((steps + 1, len(scheduler.optimizer.param_groups)))
    found[0] = values_in(scheduler.optimizer, what)
    with warnings.catch_warnings():
        # SequentialLR of torch 2.8 uses an argument that torch itself deprecates.
        warnings.filterwarnings("ignore", "The epoch parameter in", UserWarning)
        for step in range(1, steps + 1):
            try:
                scheduler.step()
            except ZeroDivisionError:
                name = type(scheduler).__name__
                raise ValueError(
                    f"scheduler: torch's own {name} divides by zero at step {step}"
                ) from None
            found[step] = values_in(scheduler.optimizer, what)
    return found


def sampled(scheduler: Any, steps: int, what: str) -> list[Schedule]:
    """Tables of the values that a copy sets when it is stepped, one per group."""
    return [table(column) for column in rows(scheduler, steps, what).T]


def values_in(optimizer: Any, what: str) -> list[float]:
    """The lr, or the momentum, in each group."""
    if what == "lr":
        return [float(group["lr"]) for group in optimizer.param_groups]
    return [
        float(group["betas"][0] if "betas" in group else group["momentum"])
        for group in optimizer.param_groups
    ]
