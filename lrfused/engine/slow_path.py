"""Slow path: validate every tensor of a step, and whether the bound table still holds."""

from typing import NamedTuple

from torch import Tensor

from lrfused import native
from lrfused.device.graph_capture import is_capturing
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.bound_table import BoundTable
from lrfused.engine.changes import Changes, changes
from lrfused.memory.checks import check_pair
from lrfused.memory.dtensor import local
from lrfused.memory.spans import Spans
from lrfused.settings.cells import is_zero
from lrfused.state.step_counts import Groups, States

GRADIENTS = "gradients (write_grads=True or zero_grads=True): two"


class Checked(NamedTuple):
    """The parameters with a gradient, and what changed; None: more than the table can take."""

    with_gradient: list[Tensor]
    changes: Changes | None


def check(
    books: Bookkeeping, table: BoundTable | None, groups: Groups, states: States
) -> Checked | None:
    """Check everything and read what the caller changed; None if there is nothing to do.

    Raises:
        RuntimeError, TypeError, ValueError: something cannot be used; nothing was changed.
    """
    books.arrange(groups)
    with_gradient = _checked_gradients(groups, books.options.changes_gradients)
    if not with_gradient:
        return None
    capturing = is_capturing(local(with_gradient[0]).device)
    if not capturing and only_allocates(books, groups, states, with_gradient):
        books.make_states(groups, states, with_gradient)
        return None
    _check_loss_was_scaled(books)
    if not capturing:
        books.adopt(groups, states)
        books.count_anew(groups, states)
    books.collect(groups, states)
    if table is not None:
        table.drop_guard()  # if this fails, the next step takes the slow path again
    found = None if table is None else changes(books, table, groups, states)
    if capturing:
        _check_can_be_captured(table if found is not None and found.are_none else None)
    return Checked(with_gradient, found)


def _checked_gradients(groups: Groups, writes: bool) -> list[Tensor]:
    """The parameters that have a gradient; each gradient is checked."""
    with_gradient = [p for group in groups for p in group["params"] if p.grad is not None]
    for param in _odd(with_gradient):
        assert param.grad is not None
        check_pair(param, param.grad, writes)
    if writes:
        Spans().put((i, GRADIENTS, local(p.grad)) for i, p in enumerate(with_gradient))
    return with_gradient


def _odd(with_gradient: list[Tensor]) -> list[Tensor]:
    """Those that C++ does not find to be all right at once."""
    if native.cpu is None or not native.tensor_readers:
        return with_gradient
    odd: list[Tensor] = native.cpu.odd_pairs(with_gradient, native.tensor_readers[0])
    return odd


def only_allocates(
    books: Bookkeeping, groups: Groups, states: States, with_gradient: list[Tensor]
) -> bool:
    """True for the call by which torch.distributed.checkpoint allocates state.

    It sets every lr to 0, fills all gradients with zeros and calls step(), where there is no state
    (of an optimizer that never has any: each time that it saves): no parameter may change.
    """
    steps_without_state = books.has_no_state() and books.has_stepped
    if steps_without_state and not books.hyper.lr_was_written_as_zero(groups):
        return False
    return (
        not any(states.get(p) for group in groups for p in group["params"])
        and all(is_zero(group["lr"]) for group in groups)
        and not any(bool(local(p.grad).any()) for p in with_gradient if p.grad is not None)
    )


def _check_loss_was_scaled(books: Bookkeeping) -> None:
    """Refuse the first step if the caller never read the dynamic scale that it divides by.

    Raises:
        RuntimeError: the scale is dynamic, and neither scale() nor metrics() was called.
    """
    policy = books.options.loss_scale
    if policy is None or not policy.dynamic or books.has_stepped or books.scale_was_asked:
        return
    raise RuntimeError(
        f"step: loss_scale is dynamic, gradients are divided by {policy.init}, and no loss was "
        "multiplied by it: write optimizer.scale(loss).backward(); if something else multiplies, "
        "ask for the scale by optimizer.metrics()['loss_scale']"
    )


def _check_can_be_captured(table: BoundTable | None) -> None:
    """Refuse a capture that would need the host to wait, before anything has changed.

    Raises:
        RuntimeError: no valid table exists, or its backend reads the device at each step.
    """
    if table is None:
        raise RuntimeError(
            "step: a new table of addresses is needed, which cannot be made while a CUDA graph is "
            "captured; before the capture, take one step with the same parameters, state and "
            "options, and with a gradient for each parameter that has one in the capture"
        )
    if not table.backend.reads_on_device:
        raise RuntimeError(
            f"backend: {table.backend.name!r} asks the device at each step and cannot be captured"
        )
