"""Error hints for values that are not hyperparameters: what to write instead."""

import inspect
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lrfused.schedules import Schedule


def refuse_what_is_no_number(name: str, value: Any, where: str = "") -> None:
    """Refuse a common mistake with a hint of what to write; ``where`` precedes the name.

    Raises:
        TypeError: the value is a torch scheduler, a function, a class or a list of schedules.
    """
    hint = _hint(name, value)
    if hint is not None:
        raise TypeError(f"{where}{name}: must be a number, a Tensor or a Schedule, got {hint}")


def _hint(name: str, value: Any) -> str | None:
    if isinstance(value, LRScheduler):
        return _hint_of_scheduler(name, value)
    if inspect.isfunction(value) and value.__module__.startswith(Schedule.__module__.split(".")[0]):
        arguments = ", ".join(inspect.signature(value).parameters)
        called = f"schedules.{value.__name__}({arguments})"
        return f"the function schedules.{value.__name__}; call it: {_line(name, called)}"
    if inspect.isclass(value):
        return f"the class {value.__name__}; it takes an object" + _if_scheduler(name, value)
    if callable(value):
        sampled = _line(name, "schedules.from_function(fn, steps=total_steps)")
        return (
            f"a {type(value).__name__}; sample it: {sampled}, or write it as arithmetic on "
            "schedules.step"
        )
    if isinstance(value, (list, tuple)) and any(isinstance(x, Schedule) for x in value):
        joined = "one schedule after another is schedules.join(schedules, boundaries)"
        if name == "max_grad_norm":
            return f"a list of schedules; {joined}"
        in_group = _line(repr(name), "schedule", ": ")
        return (
            "a list of schedules; a schedule for each group stands in the groups: "
            f"[{{'params': ..., {in_group}}}, ...]; {joined}"
        )
    return None


def _hint_of_scheduler(name: str, scheduler: LRScheduler) -> str:
    kind = type(scheduler).__name__
    if kind == "ReportLR":
        return "a ReportLR, which only reports; give the Schedule itself"
    if isinstance(scheduler, ReduceLROnPlateau):
        return (
            f"a {kind}, which follows a metric; give a number and let the scheduler write to "
            "param_groups, or multiply a schedule by schedules.input(tensor, 'factor')"
        )
    return f"a {kind} of torch's; write {_from_torch(name)}"


def _if_scheduler(name: str, kind: type) -> str:
    if not issubclass(kind, LRScheduler):
        return ""
    return f": make scheduler = {kind.__name__}(optimizer, ...) and write {_from_torch(name)}"


def _from_torch(name: str) -> str:
    return _line(name, "schedules.from_torch(scheduler, steps=total_steps)")


def _line(name: str, expression: str, sign: str = "=") -> str:
    """The line to write: as an argument, or with ``sign=": "`` in a dictionary."""
    for index, both in enumerate((f"({expression}, beta2)", f"(beta1, {expression})")):
        if name.strip("'") == f"betas[{index}]":
            return name.replace(f"[{index}]", "") + sign + both
    return name + sign + expression


def refuse_a_scaler(value: Any) -> None:
    """Refuse a GradScaler as ``loss_scale``.

    Raises:
        TypeError: the value is a GradScaler or that class.
    """
    kind = value if inspect.isclass(value) else type(value)
    if issubclass(kind, torch.amp.GradScaler):
        raise TypeError(
            "loss_scale: got a GradScaler; leave loss_scale out and call scaler.step(optimizer), "
            "or leave the GradScaler out: loss_scale='dynamic', optimizer.scale(loss).backward(), "
            "optimizer.step()"
        )
