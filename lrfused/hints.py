"""What people write for a hyperparameter that is no number, and what they would write instead."""

import inspect
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from lrfused.schedules import Schedule


def refuse_what_is_no_number(name: str, value: Any) -> None:
    """Name the line to write, where it can be guessed.

    Raises:
        TypeError: a scheduler of torch's, a function, or a list stands for a number.
    """
    hint = _hint(name, value)
    if hint is not None:
        raise TypeError(f"{name}: must be a number, a Tensor or a Schedule, got {hint}")


def _hint(name: str, value: Any) -> str | None:
    if isinstance(value, LRScheduler):
        kind = type(value).__name__
        return f"a {kind} of torch's; write {name}=schedules.from_torch(scheduler)"
    if inspect.isfunction(value) and value.__module__.startswith(Schedule.__module__.split(".")[0]):
        arguments = ", ".join(inspect.signature(value).parameters)
        called = f"schedules.{value.__name__}({arguments})"
        return f"the function schedules.{value.__name__}; call it: {name}={called}"
    if inspect.isclass(value):
        return f"the class {value.__name__}; it takes an object"
    if callable(value):
        return (
            f"a {type(value).__name__}; sample it: {name}=schedules.from_function(fn, "
            "steps=total_steps), or write it as arithmetic on schedules.step"
        )
    if isinstance(value, (list, tuple)) and any(isinstance(x, Schedule) for x in value):
        return (
            f"a list of schedules; a schedule for each group stands in the groups: "
            f"[{{'params': ..., '{name}': schedule}}, ...]; one schedule after another is "
            "schedules.join(schedules, boundaries)"
        )
    return None


def refuse_a_scaler(value: Any) -> None:
    """A GradScaler in place of ``loss_scale``.

    Raises:
        TypeError: it is one.
    """
    if isinstance(value, torch.amp.GradScaler):
        raise TypeError(
            "loss_scale: got a GradScaler; leave loss_scale out and call scaler.step(optimizer), "
            "or leave the GradScaler out: loss_scale='dynamic', optimizer.scale(loss).backward(), "
            "optimizer.step()"
        )
