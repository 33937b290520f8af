"""ReportLR: the optimizer's own schedules behind the interface of a torch LR scheduler."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrfused.optim.base import FusedOptimizer
from lrfused.schedules import Schedule
from lrfused.schedules.check import whole
from lrfused.settings.cells import is_zero

FARTHEST = 2**53  # bound on loaded call counts


class ReportLR(LRScheduler):
    """A torch LR scheduler that sets nothing and reports the values of the optimizer's schedules.

    Formula, for each group g of the optimizer:
        get_last_lr()[g] = get_lr()[g] = float(param_groups[g]["lr"]), independent of step() calls
    which after n steps of the optimizer is schedule(n), the value that the next step will use. (On
    a GPU as late as ``param_groups``; ``optimizer.sync_mirrors()`` updates them.)

    For frameworks that build their own scheduler if they get none. The Trainer of transformers
    builds a LambdaLR, which takes schedule(0) as the base of every lr that it writes: at the start
    of a warmup that is 0 or little more, for the whole run. With
    ``Trainer(..., optimizers=(opt, lrfused.ReportLR(opt)))`` the schedule is used. For Lightning
    return a ReportLR from ``configure_optimizers``, for accelerate pass it to ``prepare``.

    An ``initial_lr`` of 0, left by a scheduler that this one replaces, is removed. Otherwise
    nothing is written to ``param_groups`` and ``optimizer.step`` is not wrapped, so step() may be
    called at any time and any number of times: ``last_epoch`` is just the number of calls.
    (torch's SequentialLR starts by writing to ``param_groups``: join schedules instead.)

    Args:
        optimizer: an optimizer of this package, or a wrapper that has it as ``.optimizer``.

    Raises:
        TypeError: the optimizer is not one of lrfused.

    Example:
        >>> import torch, lrfused
        >>> from lrfused import schedules
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> opt = lrfused.AdamW([weight], lr=schedules.linear(0.0, 0.08, steps=8))
        >>> report = lrfused.ReportLR(opt)
        >>> for _ in range(4):
        ...     weight.grad = torch.ones(3)
        ...     opt.step()
        ...     report.step()
        >>> report.get_last_lr()
        [0.04]
        >>> report
        ReportLR(AdamW, lr=[0.04], last_epoch=4)

    Source: the interface of torch.optim.lr_scheduler.LRScheduler, whose constructor is not called.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        # LRScheduler.__init__ would write "initial_lr" to the groups and wrap optimizer.step.
        self.optimizer: FusedOptimizer = unwrapped(optimizer)
        for group in self.optimizer.param_groups:
            if is_zero(group.get("initial_lr")):
                del group["initial_lr"]
        self.base_lrs: list[Any] = self.get_last_lr()
        self.last_epoch = 0
        self._step_count = 1

    def get_last_lr(self) -> list[Any]:
        """The present learning rate of each group as a float; a Tensor lr is read."""
        if any(isinstance(group["lr"], Schedule) for group in self.optimizer.param_groups):
            self.optimizer.sync_mirrors()  # written since the last step
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def get_lr(self) -> list[Any]:
        """The same as :meth:`get_last_lr`, without torch's warning."""
        return self.get_last_lr()

    @property
    def _last_lr(self) -> list[Any]:  # type: ignore[override]
        return self.get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        """Count a call in ``last_epoch`` and ``_step_count``; the optimizer is not changed.

        Args:
            epoch: the new ``last_epoch``; by default it is incremented.
        """
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        """Replaces torch's method, which would write to the groups."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch

    def state_dict(self) -> dict[str, Any]:
        """The call counts, and the present learning rates for other readers."""
        return {
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "base_lrs": list(self.base_lrs),
            "_last_lr": self.get_last_lr(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the call counts that this class or any other scheduler saved.

        Everything else is ignored: learning rates come with the optimizer's own state.

        Raises:
            TypeError, ValueError: not a dictionary, or an invalid count; nothing was changed.
        """
        if not isinstance(state_dict, dict):
            raise TypeError(f"state_dict: must be a dictionary, got {type(state_dict).__name__}")
        self.last_epoch, self._step_count = (
            whole(f"state_dict: {name}", state_dict.get(name, getattr(self, name)), -FARTHEST)
            for name in ("last_epoch", "_step_count")
        )

    def __repr__(self) -> str:
        optimizer, lr = type(self.optimizer).__name__, self.get_last_lr()
        return f"{type(self).__name__}({optimizer}, lr={lr}, last_epoch={self.last_epoch})"


def unwrapped(optimizer: Any) -> FusedOptimizer:
    """The optimizer inside the wrappers that frameworks put around it."""
    found, seen = optimizer, []
    while hasattr(found, "param_groups") and isinstance(
        getattr(found, "optimizer", None), Optimizer
    ):
        seen.append(_name(found))
        found = found.optimizer
    if not isinstance(found, FusedOptimizer):
        wrapped = "".join(f" inside {name}" for name in reversed(seen))
        raise TypeError(
            f"optimizer: must be one of lrfused's, or a wrapper that has one as .optimizer, got "
            f"{_name(found)}{wrapped}"
        )
    return found


def _name(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
