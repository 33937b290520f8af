"""Binding a backend to the tensors of a step, once all of them are checked."""

import torch
from torch import Tensor

from lrfused.backends.multi_device import devices_of
from lrfused.backends.registry import Choice, choose_for_all
from lrfused.backends.work import Work
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.bound_table import BoundTable
from lrfused.memory.checks import check_moment, is_freed
from lrfused.memory.dtensor import check_is_whole, local
from lrfused.memory.operands import check_no_shared_memory, idle_entry, make_entry
from lrfused.state.operands import allocate, operands_in
from lrfused.state.step_counts import Groups, States


def bind(
    books: Bookkeeping,
    choice: Choice,
    instruction_set: str,
    groups: Groups,
    states: States,
    with_gradient: list[Tensor],
) -> tuple[BoundTable, list[Tensor]]:
    """A new table, and the parameters whose state was newly initialized for it.

    Raises:
        TypeError, ValueError: a parameter, a state or a schedule's input cannot be used;
            nothing was changed.
    """
    params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
    rule, options = books.rule, books.group_options
    books.hyper.check_bases(groups)
    state = books.settled_state(groups)
    inputs = [node._payload for _, _, sch in books.hyper.programs for node in sch.inputs]
    for tensor, name in inputs:
        _check_input(tensor, name, state.words.device)
    gradients = {id(p) for p in with_gradient}
    used = [id(p) in gradients or bool(states.get(p)) for _, p in params]
    entries = [
        make_entry(p, g, options[g].agc, (), {}) if use else idle_entry(p, g)
        for (g, p), use in zip(params, used, strict=True)
    ]
    tensors = [e.p.tensor for e in entries if not e.is_idle]
    check_no_shared_memory("params: two parameters", tensors)
    measures = books.options.measures(options)
    for (_, param), use in zip(params, used, strict=True):
        if use and measures:
            check_is_whole(param, books.options.sharded)
        for key, operand in operands_in(rule, states.get(param, {})) if use else ():
            check_moment(key, operand, param, param.device)
            tensors.append(local(operand))
    check_no_shared_memory("params and state: two tensors", tensors)
    backend = choose_for_all(choice, devices_of(entries, state.words.device))
    made = [p for (_, p), use in zip(params, used, strict=True) if use and not states.get(p)]
    counts = books.count(groups, states)  # before: what is in a state now, somebody put there
    for (g, param), use in zip(params, used, strict=True):
        if use:
            allocate(rule, options[g], states, param)
    counts.bind(states)
    state.set_groups(len(groups))
    for index, (g, param) in enumerate(params):
        if used[index]:
            operands = states.get(param, {})
            entries[index] = make_entry(param, g, options[g].agc, rule.keys, operands)
    watched = [(t, t.data_ptr()) for t in (state.tensors.steps, *(tensor for tensor, _ in inputs))]
    work = Work(rule, entries, options, books.options, state, books.hyper, watched)
    return BoundTable(work, backend, backend.bind(work, instruction_set), measures), made


def _check_input(tensor: Tensor, name: str, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(
            f"{name}: the tensor must be on the parameters' device {device}, got {tensor.device}"
        )
    if is_freed(tensor):
        raise ValueError(f"{name}: the tensor has no memory (its storage was freed)")
