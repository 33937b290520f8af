"""Entries of parameters that take part in steps: checked, then given their state."""

from typing import NamedTuple

from torch import Tensor

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.memory.checks import check_moment, check_param
from lrfused.memory.dtensor import check_is_whole, local
from lrfused.memory.operands import Entry, Operand, make_entry
from lrfused.memory.spans import PARAMS, STATE, Spans
from lrfused.settings.options import Agc
from lrfused.state.operands import operands_in
from lrfused.state.step_counts import Counts, States


class Use(NamedTuple):
    """A parameter that takes part in steps, with its row in the table and its group."""

    row: int
    param: Tensor
    group: int


def checked_entries(
    books: Bookkeeping, uses: list[Use], states: States, spans: Spans
) -> list[Entry]:
    """Check parameters and the state that they have; entries of the parameters alone.

    Gradients were checked before. ``spans`` has what else there is, and gets these.

    Raises:
        TypeError, ValueError: a parameter or a state tensor cannot be used.
    """
    measures, entries = books.options.measures(books.group_options), []
    tensors: list[tuple[int, str, Tensor]] = []
    for row, param, g in uses:
        if param.grad is None:
            check_param(param)
        entry = make_entry(param, g, books.group_options[g].agc == Agc.UNIT)
        _take_mask(books, entry)
        tensors.append((row, PARAMS, entry.p.tensor))
        if measures:
            check_is_whole(param, books.options.sharded)
        entries.append(entry)
    spans.put(tensors)
    spans.put(_checked_state(books, uses, states))
    return entries


def _checked_state(
    books: Bookkeeping, uses: list[Use], states: States
) -> list[tuple[int, str, Tensor]]:
    found = []
    for row, param, _ in uses:
        for key, operand in operands_in(books.rule, states.get(param) or {}):
            check_moment(key, operand, param, param.device)
            found.append((row, STATE, local(operand)))
    return found


def without_state(uses: list[Use], states: States) -> list[Use]:
    """Those that have no state yet."""
    return [use for use in uses if not states.get(use.param)]


def make_states(books: Bookkeeping, uses: list[Use], states: States, counts: Counts) -> None:
    """Allocate what is missing of their state; it shows the counts from now on."""
    books.allocate(states, [(use.group, use.param) for use in uses])
    for use in uses:
        counts.bind_one(use.row, states)


def give_state(books: Bookkeeping, entries: list[Entry], states: States) -> None:
    """Put the operands of their state into the entries."""
    for entry in entries:
        state = states.get(entry.param) or {}
        found = (state.get(key) for key in books.rule.state_keys)  # torch's SGD: None for no buffer
        entry.state = tuple(
            None if tensor is None else Operand.of(tensor, entry.order) for tensor in found
        )


def _take_mask(books: Bookkeeping, entry: Entry) -> None:
    place = (entry.order, entry.p.tensor.device)
    entry.mask = books.masks.bits(entry.param, *place, are_fixed=books.is_captured)
