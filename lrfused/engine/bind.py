"""Checks all tensors of a step, then binds a backend to them."""

import torch
from torch import Tensor

from lrfused.backends.multi_device import devices_of
from lrfused.backends.registry import Choice, choose_for_all
from lrfused.backends.work import Watched, Work
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.bound_table import BoundTable
from lrfused.engine.entries import Use, checked_entries, give_state, make_states, without_state
from lrfused.memory.checks import is_freed
from lrfused.memory.operands import idle_entry
from lrfused.memory.spans import Spans
from lrfused.schedules import Schedule
from lrfused.state.device_state import DeviceState
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
    params = [(param, g) for g, group in enumerate(groups) for param in group["params"]]
    uses = _uses(books, params, states, {id(p) for p in with_gradient}, used_before)
    books.hyper.check_bases(groups)
    state = books.settled_state(groups)
    schedules = [schedule for _, _, schedule in books.hyper.programs]
    check_inputs(schedules, state.words.device)
    used = checked_entries(books, uses, states, Spans())
    entries = [idle_entry(param, g) for param, g in params]
    for use, entry in zip(uses, used, strict=True):
        entries[use.row] = entry
    if not books.is_captured:
        books.masks.drop_all_but(param for param, _ in params)
    backend = choose_for_all(choice, devices_of(entries, state.words.device))
    newly_initialized = [use.param for use in without_state(uses, states)]
    counts = books.count(groups, states)  # before allocating: any state present now is the caller's
    make_states(books, uses, states, counts)
    counts.hold(states)
    state.set_groups(len(groups))
    give_state(books, used, states)
    watched = watched_tensors(schedules, state)
    work = Work(
        books.rule, entries, books.group_options, books.options, state, books.hyper, watched
    )
    run = backend.bind(work, instruction_set)
    measures = books.options.measures(books.group_options)
    return BoundTable(work, backend, run, measures, books.masks), newly_initialized


def _uses(
    books: Bookkeeping,
    params: list[tuple[Tensor, int]],
    states: States,
    with_gradient: set[int],
    used_before: set[int],
) -> list[Use]:
    """The parameters that take part: with a gradient or a state, and averaged ones."""
    # What never has state is told apart by having been used.
    stateless = [not books.rule.has_state(options) for options in books.group_options]
    return [
        Use(index, param, g)
        for index, (param, g) in enumerate(params)
        if id(param) in with_gradient
        or books.group_options[g].average_every > 0
        or states.get(param)
        or (stateless[g] and id(param) in used_before)
    ]


def watched_tensors(schedules: list[Schedule], state: DeviceState) -> Watched:
    """The tensors besides parameters and state whose addresses a table holds."""
    inputs = [node._payload[0] for schedule in schedules for node in schedule.inputs]
    return [(tensor, tensor.data_ptr()) for tensor in (*state.tensors.memory(), *inputs)]


def check_inputs(schedules: list[Schedule], device: torch.device) -> None:
    """Refuse schedules that read a tensor which a step on this device cannot read.

    Raises:
        ValueError: it is on another device, or without memory.
    """
    for tensor, name in (node._payload for schedule in schedules for node in schedule.inputs):
        if tensor.device != device:
            raise ValueError(
                f"{name}: the tensor must be on the parameters' device {device}, got "
                f"{tensor.device}"
            )
        if is_freed(tensor):
            raise ValueError(f"{name}: the tensor has no memory (its storage was freed)")
