"""The look at everything that a step uses, where a quick one does not do."""

from typing import TYPE_CHECKING

from torch import Tensor

from lrfused.device.graph_capture import is_capturing
from lrfused.engine.adopt import adopt
from lrfused.engine.bound_table import Table, allocate, build, holds, is_current
from lrfused.engine.counting import count, count_anew
from lrfused.memory.checks import check_pair
from lrfused.memory.dtensor import local
from lrfused.memory.operands import check_no_shared_memory
from lrfused.settings.cells import is_zero
from lrfused.state.step_counts import Groups, States

if TYPE_CHECKING:
    from lrfused.engine.engine import Engine


def look_closely(
    engine: "Engine", groups: Groups, states: States
) -> tuple[list[int] | None, list[Tensor]]:
    """Check everything, and build a new table where the old one does not hold.

    Returns the places of the gradients (None: there is nothing to be done) and the
    parameters that got their state for it.
    """
    engine.arrange(groups)
    with_gradient = [p for group in groups for p in group["params"] if p.grad is not None]
    for param in with_gradient:
        check_pair(param, param.grad, engine.options.write_grads)
    if engine.options.write_grads:
        gradients = [local(p.grad) for p in with_gradient]
        check_no_shared_memory("gradients (write_grads=True): two", gradients)
    if not with_gradient:
        return None, []
    capturing = is_capturing(local(with_gradient[0]).device)
    if not capturing and _only_allocates(groups, states, with_gradient):
        for group in groups:
            for param in group["params"]:
                if param.grad is not None:
                    allocate(states[param], param, group["amsgrad"])
        engine.align(groups)
        count(engine, groups, states)
        return None, []
    _check_loss_was_scaled(engine)
    if not capturing:
        adopt(engine, groups, states)
        count_anew(engine, groups, states)
    engine.collect(groups, states)
    made: list[Tensor] = []
    table = engine._table
    if table is not None:
        table.walk = None  # whatever happens on the way, the next look is a close one, too
        if not is_current(table.work, engine.groups, engine.hyper) or not holds(
            table.work, groups, states
        ):
            table = None
    if capturing:
        _check_can_be_captured(table)
    if table is None:
        engine.forget_table()
        table, made = build(engine, groups, states, with_gradient)
        engine.describe_written(groups)
    table.work.addresses[:, 1] = -1
    table.work.moving = with_gradient
    engine._table = table
    return [i for i, e in enumerate(table.work.entries) if e.param.grad is not None], made


def _only_allocates(groups: Groups, states: States, with_gradient: list[Tensor]) -> bool:
    """torch.distributed.checkpoint's way to have state allocated: nothing may move.

    It writes every lr as 0, fills all gradients with zeros and calls step().
    """
    return (
        not any(states.get(p) for group in groups for p in group["params"])
        and all(is_zero(group["lr"]) for group in groups)
        and not any(bool(local(p.grad).any()) for p in with_gradient if p.grad is not None)
    )


def _check_loss_was_scaled(engine: "Engine") -> None:
    """Refuse the first step where nobody can know the scale that it divides by.

    Raises:
        RuntimeError: the scale is dynamic, and neither scale() nor metrics() was called.
    """
    policy = engine.options.loss_scale
    if policy is None or not policy.dynamic or engine.stepped or engine.scale_was_asked:
        return
    raise RuntimeError(
        f"step: loss_scale is dynamic, gradients are divided by {policy.init}, and no loss was "
        "multiplied by it: write optimizer.scale(loss).backward(); if something else multiplies, "
        "ask for the scale by optimizer.metrics()['loss_scale']"
    )


def _check_can_be_captured(table: Table | None) -> None:
    """Refuse a capture that would have to ask the device, before anything has changed.

    Raises:
        RuntimeError: there is no table that holds, or the reference steps it.
    """
    if table is None:
        raise RuntimeError(
            "step: a new table of addresses is needed, which cannot be made while a CUDA graph is "
            "captured; before the capture, take one step with the same parameters, state and "
            "options, and with a gradient for each parameter that has one in the capture"
        )
    if not table.takes_tensors:
        raise RuntimeError(
            f"backend: {table.backend!r} asks the device at each step and cannot be captured"
        )
