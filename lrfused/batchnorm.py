"""The momentum of batch normalisation as a schedule, like an optimizer's hyperparameters."""

import copy
from dataclasses import dataclass
from typing import Any

from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from lrfused.optim.base import FusedOptimizer
from lrfused.optim.report import unwrapped
from lrfused.schedules import Schedule
from lrfused.schedules.phases import expect_schedule


def schedule_momentum(
    model: Module, schedule: Schedule, optimizer: Optimizer | None = None
) -> "MomentumSchedule":
    """Drive the momentum of a model's BatchNorm modules by a Schedule.

    Formula, at a forward of the model in training mode after t completed steps, m = schedule(t):
        running_mean <- (1 - m) * running_mean + m * mean of the batch
        running_var  <- (1 - m) * running_var  + m * variance of the batch
    t = the completed steps of the optimizer, as its own schedules count        with an optimizer
    t = the forwards of the model in training mode that came before this one    without one
    (In torch the momentum is the weight of the new batch, not of the past.)

    The mean and variance of an activation change as fast as the weights do, and that is in
    proportion to the lr. With a momentum in proportion to the lr, the running statistics are an
    average over few batches while the weights change fast, and over many when they change slowly.

    The model needs to be called, as ``model(x)``: a hook before its forward writes the momentum of
    all modules. A momentum that someone else writes afterwards is kept (so
    ``torch.optim.swa_utils.update_bn`` works). In eval mode nothing is written or counted. On a GPU
    the optimizer's step is known as late as the numbers in ``param_groups``; nothing waits for it.
    A schedule with inputs is another matter: the host reads them at every forward, and so waits
    until the GPU has done what was given to it before.
    The momentum is a Python number: a captured CUDA graph does not see it change, and torch.compile
    compiles anew at each change, up to its limit of recompilations, and then runs uncompiled.

    A deepcopy of the model has a schedule of its own, on the same optimizer (or on its own count of
    forwards, from where it is); a pickled model goes on by its count of forwards. A second call for
    the same model, or for a copy, replaces the schedule.

    Args:
        model: a module that contains BatchNorm modules (SyncBatchNorm and lazy ones, too) with
            running statistics; convert to SyncBatchNorm before. A momentum of None (cumulative
            average) is replaced as well.
        schedule: values in [0, 1].
        optimizer: one of lrfused's, or a wrapper that has it as ``.optimizer``; None: forwards are
            counted, with gradient accumulation those of every micro-batch.

    Returns:
        a handle; its ``remove()`` ends this and restores the momenta that there were.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the model has no BatchNorm module with running statistics, or the schedule is
            not in [0, 1] at this step; at a later one the forward raises it.

    Example:
        >>> import torch, lrfused
        >>> from lrfused import batchnorm, schedules
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
        >>> lr = schedules.cosine(1e-3, 0.0, steps=100)
        >>> opt = lrfused.SGD(model.parameters(), lr=lr)
        >>> momentum = schedules.maximum(0.01, 0.1 * lr / 1e-3)
        >>> handle = batchnorm.schedule_momentum(model, momentum, opt)
        >>> opt.set_step(50)
        >>> _ = model(torch.randn(8, 4))
        >>> round(model[1].momentum, 6)
        0.05
        >>> handle.remove()
        >>> model[1].momentum
        0.1

    Source: Ioffe and Szegedy, Batch Normalization, arXiv 1502.03167; torch.nn.BatchNorm1d.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    expect_schedule("schedule", schedule)
    followed = None if optimizer is None else unwrapped(optimizer)
    modules = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not modules:
        raise ValueError("model: has no BatchNorm module with running statistics")
    step = 0 if followed is None else followed.known_step
    momentum = _momentum_at(schedule, step)
    for hook in list(model._forward_pre_hooks.values()):
        if isinstance(hook, MomentumSchedule):
            hook.remove()
    return MomentumSchedule(model, modules, schedule, followed, momentum)


@dataclass
class _Driven:
    """A module, its momentum before, and what was written there last."""

    module: _BatchNorm
    before: float | None
    written: float

    def has_ours(self) -> bool:
        return self.module.momentum == self.written

    def write(self, momentum: float) -> None:
        if self.has_ours():
            self.module.momentum = self.written = momentum


class MomentumSchedule:
    """The handle of :func:`schedule_momentum`, and the hook before the model's forward."""

    def __init__(
        self,
        model: Module,
        modules: list[_BatchNorm],
        schedule: Schedule,
        optimizer: FusedOptimizer | None,
        momentum: float,
    ):
        self._schedule, self._optimizer, self._forwards = schedule, optimizer, 0
        self._driven = [_Driven(module, module.momentum, momentum) for module in modules]
        for module in modules:
            module.momentum = momentum
        self._hook = model.register_forward_pre_hook(self)

    @property
    def step(self) -> int:
        """The step at which the schedule is evaluated next."""
        return self._forwards if self._optimizer is None else self._optimizer.known_step

    def __call__(self, model: Module, _: Any) -> None:
        """Write the present momentum, and count the forward."""
        if not model.training:
            return
        momentum = _momentum_at(self._schedule, self.step)
        for driven in self._driven:
            driven.write(momentum)
        self._forwards += 1

    def remove(self) -> None:
        """Stop, and restore the momenta that there were, except where someone else wrote one."""
        self._hook.remove()
        for driven in self._driven:
            if driven.has_ours():
                driven.module.momentum = driven.before
        self._driven = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "MomentumSchedule":
        """A copy for a copied model. The optimizer is not copied with it."""
        copied = memo[id(self)] = object.__new__(type(self))
        own = {name: value for name, value in self.__dict__.items() if name != "_optimizer"}
        copied.__dict__.update(copy.deepcopy(own, memo))
        copied._optimizer = memo.get(id(self._optimizer), self._optimizer)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_optimizer": None, "_forwards": self.step}


def _momentum_at(schedule: Schedule, step: int) -> float:
    momentum = schedule(step)
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"schedule: must be in [0, 1], got {momentum} at step {step}")
    return momentum
