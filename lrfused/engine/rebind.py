"""Binds anew what changed since a table was built, and leaves the other rows as they are."""

from torch import Tensor

from lrfused.backends import multi_device
from lrfused.device.graph_capture import is_capturing
from lrfused.engine.bind import check_inputs, watched_tensors
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.bound_table import BoundTable
from lrfused.engine.changes import Changes, counts_are_ours
from lrfused.engine.entries import Use, checked_entries, give_state, make_states, without_state
from lrfused.memory.checks import check_pair
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.memory.operands import Entry
from lrfused.state.step_counts import States


def can_rebind(table: BoundTable, states: States, rows: list[int]) -> bool:
    """False if that would not be enough: the table has to be built from the start, or stays."""
    if table.is_captured or not table.run.updates:
        return False
    if is_capturing(table.work.state.words.device):
        return False
    entries = table.work.entries
    return all(
        counts_are_ours(table, row, states)
        # An idle one may have got an empty dictionary for its state, which is nothing to bind.
        and not (entries[row].is_idle and entries[row].param.grad is None)
        for row in rows
    )


@normal_tensors()
def rebind(
    books: Bookkeeping, table: BoundTable, states: States, changes: Changes
) -> list[Tensor] | None:
    """Make rows for what changed; returns the parameters whose state was newly initialized.

    None if a parameter has come to another device. After that, or an error, nothing of the
    caller's was changed, and the table is of no use any more.

    Raises:
        RuntimeError, TypeError, ValueError: something that changed cannot be used.
    """
    work = table.work
    uses = [Use(i, work.entries[i].param, work.entries[i].group) for i in changes.rows]
    for _, param, _ in uses:
        if param.grad is not None:
            check_pair(param, param.grad, books.options.changes_gradients)
    check_inputs(books.hyper.schedules_at(changes.sources), work.state.words.device)
    entries = checked_entries(books, uses, states, table.spans_without(changes.rows))
    before = [work.entries[use.row] for use in uses]
    if not all(_stays(table, *both) for both in zip(before, entries, strict=True)):
        return None
    new = without_state(uses, states)
    try:
        make_states(books, uses, states, work.state.tensors)
        give_state(books, entries, states)
        table.replace(changes.rows, entries, {use.row for use in new})
        if changes.sources:
            schedules = [schedule for _, _, schedule in books.hyper.programs]
            work.replace_sources(watched_tensors(schedules, work.state))
        table.run.update(work, changes.rows, changes.sources)
        table.update_guard(changes.rows, states)
    except BaseException:
        for use in new:
            states.pop(use.param, None)
        raise
    return [use.param for use in new]


def _stays(table: BoundTable, before: Entry, now: Entry) -> bool:
    """True if an entry is on its device of before, or is new, on one that takes part already."""
    if before.is_idle:
        return multi_device.device_of(now) in table.devices
    return multi_device.device_of(now) == multi_device.device_of(before)
