"""Building a table of addresses for a step, and seeing whether it still holds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrfused import native
from lrfused.backends.multi_device import devices_of
from lrfused.backends.protocol import Runner
from lrfused.backends.registry import BACKENDS, choose_for_all
from lrfused.backends.work import Work
from lrfused.engine.counting import count
from lrfused.groups.matrix import WATCHED, Hyperparameters
from lrfused.memory.checks import PLAIN, check_moment, is_freed
from lrfused.memory.dtensor import check_is_whole, local
from lrfused.memory.operands import (
    Entry,
    Place,
    check_no_shared_memory,
    idle_entry,
    make_entry,
    place_of,
)
from lrfused.settings.options import GroupOptions
from lrfused.state.step_counts import Groups, States

if TYPE_CHECKING:
    from lrfused.engine.engine import Engine

MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


@dataclass(eq=False)
class Table:
    """Everything with a fixed address, who steps over it, and what watches that it holds."""

    work: Work
    backend: str
    run: Runner
    walk: Any = None  # native.cpu.Walk, where torch lets it look
    measures: bool = False
    takes_tensors: bool = False  # of an outside GradScaler, and reads them on the device
    is_captured: bool = False  # a CUDA graph reads its memory, and may be replayed at any time

    def take_outside(self, grad_scale: Any, found_inf: Any) -> None:
        """What a GradScaler says: as it is where the device reads it, elsewhere as numbers."""
        scale = 1.0 if grad_scale is None else grad_scale
        found = False if found_inf is None else found_inf
        if not self.takes_tensors:
            scale, found = float(scale), float(found) != 0.0
        self.work.grad_scale, self.work.found_inf = scale, found


def build(
    engine: "Engine", groups: Groups, states: States, with_gradient: list[Tensor]
) -> tuple[Table, list[Tensor]]:
    """A new table, and the parameters that got their state for it: those that had none.

    Raises:
        TypeError, ValueError: a parameter, a state or a schedule's input cannot be used;
            nothing was changed.
    """
    params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
    engine.hyper.check_bases(groups)
    state = engine.settled_state(groups)
    inputs = [node._payload for _, _, sch in engine.hyper.programs for node in sch.inputs]
    for tensor, name in inputs:
        _check_input(tensor, name, state.words.device)
    gradients = {id(p) for p in with_gradient}
    used = [id(p) in gradients or bool(states.get(p)) for _, p in params]
    entries = [
        make_entry(p, g, engine.groups[g].agc, MOMENTS, {}) if use else idle_entry(p, g)
        for (g, p), use in zip(params, used, strict=True)
    ]
    tensors = [e.p.tensor for e in entries if not e.is_idle]
    check_no_shared_memory("params: two parameters", tensors)
    measures = engine.options.measures(engine.groups)
    for (_, param), use in zip(params, used, strict=True):
        if use and measures:
            check_is_whole(param, engine.options.sharded)
        for key in MOMENTS if use else ():
            if key in states.get(param, {}):
                check_moment(key, states[param][key], param, param.device)
                tensors.append(local(states[param][key]))
    check_no_shared_memory("params and state: two tensors", tensors)
    backend = choose_for_all(engine.backend, devices_of(entries, state.words.device))
    made = [p for (_, p), use in zip(params, used, strict=True) if use and not states.get(p)]
    for (g, param), use in zip(params, used, strict=True):
        if use:
            allocate(states[param], param, engine.groups[g].of_rule["amsgrad"])
    count(engine, groups, states)
    state.set_groups(len(groups))
    for index, (g, param) in enumerate(params):
        if used[index]:
            entries[index] = make_entry(param, g, engine.groups[g].agc, MOMENTS, states[param])
    watched = [(t, t.data_ptr()) for t in (state.tensors.steps, *(tensor for tensor, _ in inputs))]
    work = Work(engine.rule, entries, engine.groups, engine.options, state, engine.hyper, watched)
    run = backend.bind(work, engine.instruction_set)
    takes_tensors = backend.reads_on_device
    table = Table(work, backend.name, run, measures=measures, takes_tensors=takes_tensors)
    return table, made


def watch(table: Table, groups: Groups, states: States) -> Any:
    """What can tell by a quick look that the table holds; None: it has to be seen closely."""
    work = table.work
    if (
        native.cpu is None
        or not native.tensor_readers
        or not BACKENDS[table.backend].reads_addresses
        or not isinstance(groups, list)
        or work.options.write_grads
        or any(type(e.param) not in PLAIN for e in work.entries)
    ):
        return None
    params = [(e.param, e.group, bool(e.state), e.is_plain) for e in work.entries]
    watched = [tensor for tensor, _ in work.watched]
    for state in (s for s in states.values() if isinstance(s, dict)):
        watched += [tensor for tensor in state.values() if isinstance(tensor, Tensor)]
    return native.cpu.Walk(groups, states, params, watched, WATCHED, native.tensor_readers[0])


def is_current(work: Work, groups: list[GroupOptions], hyper: Hyperparameters) -> bool:
    """The table was built for these groups, options and schedules."""
    if work.rows != hyper.rows or work.groups != groups:
        return False
    return all(x is y for x, y in zip(work.sources, hyper.sources, strict=True))


def holds(work: Work, groups: Groups, states: States) -> bool:
    """The table still describes what the caller's objects are."""
    params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
    tensors = work.state.tensors
    counts = zip(tensors.views, tensors.places, strict=True)
    return (
        len(params) == len(work.entries)
        and all(
            entry.param is param and entry.group == g and _holds(entry, *count, states)
            for (g, param), entry, count in zip(params, work.entries, counts, strict=True)
        )
        and all(tensor.data_ptr() == pointer for tensor, pointer in work.watched)
    )


def _holds(entry: Entry, views: dict[str, Tensor], place: Place, states: States) -> bool:
    """The parameter and its state are the tensors that the table was built from."""
    state = states.get(entry.param)
    if not state:
        return not entry.state and entry.param.grad is None
    if not entry.state or any(state.get(key) is not view for key, view in views.items()):
        return False
    if "step" in views and place_of(views["step"]) != place:
        return False
    for operand, key in zip(entry.state, MOMENTS, strict=True):
        if operand is None:
            if key in state:
                return False
        elif not (isinstance(state.get(key), Tensor) and operand.is_of(state[key])):
            return False
    return entry.p.is_of(entry.param)


def allocate(state: dict[str, Tensor], param: Tensor, amsgrad: bool) -> None:
    """The moments that a parameter does not have yet, as torch allocates them."""
    for key in MOMENTS[: 3 if amsgrad else 2]:
        if key not in state:
            state[key] = torch.zeros_like(param, memory_format=torch.preserve_format).detach()


def _check_input(tensor: Tensor, name: str, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(
            f"{name}: the tensor must be on the parameters' device {device}, got {tensor.device}"
        )
    if is_freed(tensor):
        raise ValueError(f"{name}: the tensor has no memory (its storage was freed)")
