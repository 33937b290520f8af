"""What changed since a table was built, as the slow path finds it; the guard does it in C++."""

from typing import NamedTuple

from torch import Tensor

from lrfused.backends.work import Place
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.bound_table import BoundTable
from lrfused.memory.operands import Entry
from lrfused.settings.slots import Slot
from lrfused.state.step_counts import Groups, States


class Changes(NamedTuple):
    """Rows of parameters that moved or are new; hyperparameters that have another source."""

    rows: list[int]
    sources: list[Place]

    @property
    def are_none(self) -> bool:
        """The table holds as it is."""
        return not self.rows and not self.sources


def changes(
    books: Bookkeeping, table: BoundTable, groups: Groups, states: States
) -> Changes | None:
    """All changes; None if the table has to be built from the start."""
    sources = changed_sources(books, table)
    rows = None if sources is None else changed_rows(table, groups, states)
    return None if sources is None or rows is None else Changes(rows, sources)


def is_current(books: Bookkeeping, table: BoundTable) -> bool:
    """True if the table was built for the present groups, options and schedules."""
    return changed_sources(books, table) == []


def holds(table: BoundTable, groups: Groups, states: States) -> bool:
    """True if the table still describes the caller's parameters and state."""
    return changed_rows(table, groups, states) == []


def changed_sources(books: Bookkeeping, table: BoundTable) -> list[Place] | None:
    """The hyperparameters with another source; None if the groups or options are others."""
    work, hyper = table.work, books.hyper
    if work.rows != hyper.rows or work.groups != books.group_options:
        return None
    pairs = enumerate(zip(work.sources, hyper.sources, strict=True))
    return [(i // len(Slot), Slot(i % len(Slot))) for i, (x, y) in pairs if x is not y]


def changed_rows(table: BoundTable, groups: Groups, states: States) -> list[int] | None:
    """The rows that are out of date; None if more than those are."""
    params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
    work = table.work
    if (
        table.is_stale
        or len(params) != len(work.entries)
        or any(
            entry.param is not param or entry.group != g
            for (g, param), entry in zip(params, work.entries, strict=True)
        )
        or any(tensor.data_ptr() != pointer for tensor, pointer in work.watched)
        or not all(counts_are_ours(table, row, states) for row in range(len(params)))
    ):
        return None
    return [row for row, entry in enumerate(work.entries) if not _holds(table, entry, states)]


def counts_are_ours(table: BoundTable, row: int, states: States) -> bool:
    """True if the parameter's state shows the count that the kernels write.

    Without one of its operands it would have to count anew.
    """
    entry = table.work.entries[row]
    state = states.get(entry.param) or {}
    if entry.is_idle:
        return not state
    pairs = zip(entry.state, table.work.rule.state_keys, strict=True)
    is_whole = all(operand is None or state.get(key) is not None for operand, key in pairs)
    return is_whole and table.work.state.tensors.are_shown(row, states)


def _holds(table: BoundTable, entry: Entry, states: States) -> bool:
    """True if the parameter and its state are the tensors that the row was made from."""
    if entry.is_idle:
        return entry.param.grad is None
    state = states.get(entry.param) or {}
    for operand, key in zip(entry.state, table.work.rule.state_keys, strict=True):
        now = state.get(key)
        if operand is None:
            if now is not None:
                return False
        elif not (isinstance(now, Tensor) and operand.is_of(now)):
            return False
    return entry.p.is_of(entry.param)
