"""Checks all tensors of a step, then binds a backend to them."""

from typing import NamedTuple

import torch
from torch import Tensor

from lrfused.backends.multi_device import devices_of
from lrfused.backends.registry import Choice, choose_for_all
from lrfused.backends.work import Work
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.bound_table import BoundTable
from lrfused.memory.checks import check_moment, check_param, is_freed
from lrfused.memory.dtensor import check_is_whole, local
from lrfused.memory.operands import Entry, check_no_shared_memory, idle_entry, make_entry
from lrfused.settings.options import Agc
from lrfused.state.operands import allocate, operands_in
from lrfused.state.step_counts import Groups, States


def bind(
    books: Bookkeeping,
    choice: Choice,
    instruction_set: str,
    groups: Groups,
    states: States,
    with_gradient: list[Tensor],
    used_before: set[int],
) -> tuple[BoundTable, list[Tensor]]:
    """Build a bound table; also returns the parameters whose state was newly initialized.

    Raises:
        TypeError, ValueError: a parameter, a state tensor or a schedule's input cannot be used;
            nothing was changed.
    """
    gradients = {id(p) for p in with_gradient}
    # What never has state is told apart by having been used.
    stateless = [not books.rule.has_state(options) for options in books.group_options]
    uses = [
        Use(
            param,
            g,
            id(param) in gradients
            or options.average_every > 0
            or bool(states.get(param))
            or (stateless[g] and id(param) in used_before),
        )
        for g, (group, options) in enumerate(zip(groups, books.group_options, strict=True))
        for param in group["params"]
    ]
    books.hyper.check_bases(groups)
    state = books.settled_state(groups)
    inputs = _checked_inputs(books, state.words.device)
    entries = _checked_entries(books, uses, states)
    if not books.is_captured:
        books.masks.drop_all_but(use.param for use in uses)
    backend = choose_for_all(choice, devices_of(entries, state.words.device))
    newly_initialized = [u.param for u in uses if u.is_used and not states.get(u.param)]
    rule, options = books.rule, books.group_options
    counts = books.count(groups, states)  # before allocating: any state present now is the caller's
    for param, g, is_used in uses:
        if is_used:
            allocate(rule, options[g], states, param)
    counts.bind(states)
    books.masks.mark(states, [u.param for u in uses if u.is_used])
    state.set_groups(len(groups))
    for index, (param, g, is_used) in enumerate(uses):
        if is_used:
            operands = states.get(param, {})
            in_units = options[g].agc == Agc.UNIT
            entries[index] = make_entry(param, g, in_units, rule.state_keys, operands)
            _take_mask(books, entries[index])
    watched = [(tensor, tensor.data_ptr()) for tensor in (state.tensors.steps, *inputs)]
    work = Work(rule, entries, options, books.options, state, books.hyper, watched)
    run = backend.bind(work, instruction_set)
    measures = books.options.measures(options)
    return BoundTable(work, backend, run, measures, books.masks), newly_initialized


def _take_mask(books: Bookkeeping, entry: Entry) -> None:
    place = (entry.order, entry.p.flat.device)
    entry.mask = books.masks.bits(entry.param, *place, are_fixed=books.is_captured)


class Use(NamedTuple):
    """A parameter and its group; ``is_used`` if it has a part in steps, else not checked.

    It has one with a gradient, with a state, or if it is averaged.
    """

    param: Tensor
    group: int
    is_used: bool


def _checked_entries(books: Bookkeeping, uses: list[Use], states: States) -> list[Entry]:
    """Check parameters and their state; entries of the parameters alone, without the state yet."""
    options = books.group_options
    for param, _, is_used in uses:
        if is_used and param.grad is None:
            check_param(param)
    entries = [
        make_entry(param, g, options[g].agc == Agc.UNIT, (), {})
        if is_used
        else idle_entry(param, g)
        for param, g, is_used in uses
    ]
    for entry in entries:
        if not entry.is_idle:
            _take_mask(books, entry)
    tensors = [entry.p.tensor for entry in entries if not entry.is_idle]
    check_no_shared_memory("params: two parameters", tensors)
    measures = books.options.measures(options)
    for param, _, is_used in uses:
        if is_used and measures:
            check_is_whole(param, books.options.sharded)
        operands = operands_in(books.rule, states.get(param, {})) if is_used else []
        for key, operand in operands:
            check_moment(key, operand, param, param.device)
            tensors.append(local(operand))
    check_no_shared_memory("params and state: two tensors", tensors)
    return entries


def _checked_inputs(books: Bookkeeping, device: torch.device) -> list[Tensor]:
    """The tensors that schedules read, each checked."""
    inputs = [node._payload for _, _, sch in books.hyper.programs for node in sch.inputs]
    for tensor, name in inputs:
        _check_input(tensor, name, device)
    return [tensor for tensor, _ in inputs]


def _check_input(tensor: Tensor, name: str, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(
            f"{name}: the tensor must be on the parameters' device {device}, got {tensor.device}"
        )
    if is_freed(tensor):
        raise ValueError(f"{name}: the tensor has no memory (its storage was freed)")
