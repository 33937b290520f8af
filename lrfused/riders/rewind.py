"""Rewinding: everything is checked, then written into the memory that is there.

Captured graphs and bound tables hold the addresses of parameters, state, counts, counters and
Tensor hyperparameters: none of them changes.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.engine import Engine
from lrfused.groups.inputs import fits, input_values
from lrfused.groups.stored import Stored
from lrfused.memory.checks import check_moment
from lrfused.memory.dtensor import local
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.memory.uninterrupted import uninterrupted
from lrfused.riders.masks import clear_masked
from lrfused.riders.refusals import has_memory, refuse_now
from lrfused.riders.snapshot import (
    GroupList,
    Snapshot,
    parameters,
    placing_of,
    products,
)
from lrfused.rules import UpdateRule
from lrfused.settings.cells import Cell, read_group, written
from lrfused.settings.slots import Slot
from lrfused.state.device_state import Field
from lrfused.state.operands import fill, operands_in
from lrfused.state.step_counts import Counts, States


class Number(NamedTuple):
    """A hyperparameter's value that does not come from a schedule.

    Where it overrides one, ``mirror`` is what the caller wrote it over, which gives the lead back.
    """

    group: int
    slot: Slot
    value: float
    overrides: bool = False
    mirror: float | None = None


@dataclass
class Changes:
    """What is to be written, in an order that does not matter."""

    copies: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # (present, snapshot's)
    fills: list[tuple[Tensor, float]] = field(default_factory=list)  # state that there was not
    new: dict[Tensor, dict[str, Tensor]] = field(default_factory=lambda: defaultdict(dict))
    numbers: list["Number"] = field(default_factory=list)
    inputs: list[tuple[Tensor, float]] = field(default_factory=list)
    counters: dict[Field, float] = field(default_factory=dict)


@normal_tensors()
def rewind(engine: Engine, opt: Optimizer, snapshot: Snapshot) -> None:
    """Put everything back as it was; nothing is changed unless everything can be.

    Raises:
        TypeError: it is no snapshot.
        ValueError: it is of an optimizer of another form.
        RuntimeError: a CUDA graph is being captured, or groups were edited after a capture.
    """
    if not isinstance(snapshot, Snapshot):
        raise TypeError(f"snapshot: must be a Snapshot, got {type(snapshot).__name__}")
    books, groups, states = engine.bookkeeping, opt.param_groups, opt.state
    refuse_now("rewind", books, groups)
    books.align(groups)
    _check_groups(books, groups, snapshot)
    changes = _changes_of_tensors(books.rule, parameters(groups), states, snapshot)
    books.collect(groups, states)
    counts = books.count(groups, states)
    _check_form("counts", counts.counts, snapshot.counts)
    _check_form("carried", counts.carried, snapshot.carried)
    changes.counters = {Field[name.upper()]: x for name, x in snapshot.counters.items()}
    changes.numbers = _numbers(books, groups, snapshot)
    changes.inputs = input_values(books.hyper.rows, _stored(snapshot), [{} for _ in groups])
    uninterrupted(lambda: _commit(engine, opt, snapshot, changes, counts))


# Checks


def _check_groups(books: Bookkeeping, groups: GroupList, snapshot: Snapshot) -> None:
    """Refuse a snapshot of another rule, of other groups, or without products that are needed."""
    if snapshot.optimizer != books.rule.name:
        raise ValueError(
            f"snapshot: is of the optimizer {snapshot.optimizer!r}, this one is {books.rule.name!r}"
        )
    if len(snapshot.groups) != len(groups):
        raise ValueError(
            f"snapshot: has {len(snapshot.groups)} parameter groups, the optimizer {len(groups)}"
        )
    for g, (saved, group) in enumerate(zip(snapshot.groups, groups, strict=True)):
        if saved["size"] != len(group["params"]):
            raise ValueError(
                f"snapshot: group {g} has {saved['size']} parameters, "
                f"the optimizer's {len(group['params'])}"
            )
        needed = products(books, books.group_options[g])
        if missing := [key for key in needed if key not in saved["products"]]:
            raise ValueError(
                f"snapshot: group {g} has no {missing[0]}, which this optimizer needs: it was "
                "taken with another bias_correction"
            )


def _changes_of_tensors(
    rule: UpdateRule, params: list[Tensor], states: States, snapshot: Snapshot
) -> Changes:
    """What is to be done to parameters and their states; all memory for it is allocated here."""
    changes = Changes()
    saved = zip(snapshot.weights, snapshot.placings, snapshot.operands, strict=True)
    for i, (param, (weight, place, operands)) in enumerate(zip(params, saved, strict=True)):
        _check_form(f"parameter {i}", param, weight)
        if place != placing_of(param):
            raise ValueError(
                f"snapshot: parameter {i} is distributed as {place or 'no DTensor'}, "
                f"the optimizer's as {placing_of(param) or 'no DTensor'}"
            )
        changes.copies.append((param, weight))
        present = dict(operands_in(rule, states.get(param) or {}))
        for key, operand in operands.items():
            if key in present:
                _check_form(f"{key} of parameter {i}", present[key], operand)
                changes.copies.append((present[key], operand))
            else:
                changes.new[param][key] = _made(param, key, operand)
        changes.fills += [
            (present[operand.key], operand.initial)
            for operand in rule.state_operands
            if operand.key in present.keys() - operands.keys()
        ]
    return changes


def _check_form(what: str, present: Tensor, saved: Tensor) -> None:
    now = has_memory(f"rewind: {what}", present)
    if (now.shape, now.dtype) != (saved.shape, saved.dtype):
        raise ValueError(
            f"snapshot: {what} is {saved.dtype} of shape {tuple(saved.shape)}, "
            f"the optimizer's {now.dtype} of shape {tuple(now.shape)}"
        )


def _made(param: Tensor, key: str, operand: Tensor) -> Tensor:
    """A new state tensor, laid out as at a first step."""
    check_moment(f"snapshot: {key}", operand, local(param), operand.device)
    made = torch.zeros_like(param, dtype=operand.dtype, memory_format=torch.preserve_format)
    local(made).copy_(operand)
    return made.detach()


def _numbers(books: Bookkeeping, groups: GroupList, snapshot: Snapshot) -> list[Number]:
    """The values of groups that do not come from schedules.

    A schedule of now is overridden where the one of then was. What was scheduled then is left to
    the schedule, Tensor or number of now.
    """
    found = []
    for g, (group, saved) in enumerate(zip(groups, snapshot.groups, strict=True)):
        for slot in books.hyper.slots:
            name, cell = slot.name.lower(), books.hyper.rows[g].cells[slot]
            value, mirror = saved["overrides"].get(name, (saved["numbers"].get(name), None))
            if value is None or (cell.schedule is not None and name not in saved["overrides"]):
                continue
            host = read_group(group, slot)
            if isinstance(host, Tensor) and not fits(value, host):
                raise ValueError(
                    f"snapshot: {slot.argument} of group {g} cannot be {value} in {host.dtype}"
                )
            found.append(Number(g, slot, value, cell.schedule is not None, mirror))
    return found


def _stored(snapshot: Snapshot) -> list[Stored | None]:
    """The values of inputs, in the form of a checkpoint's."""
    return [
        Stored(inputs={Slot[name.upper()]: values for name, values in saved["inputs"].items()})
        for saved in snapshot.groups
    ]


# Writing


def _commit(
    engine: Engine, opt: Optimizer, snapshot: Snapshot, changes: Changes, counts: Counts
) -> None:
    books, groups, states = engine.bookkeeping, opt.param_groups, opt.state
    for present, saved in changes.copies:
        _overwrite(local(present), saved)
    for present, value in changes.fills:
        fill(local(present), value)
    for param, operands in changes.new.items():
        states[param].update(operands)
    clear_masked(books, opt, books.masks.shown(parameters(groups)))  # the masks of now
    counts.set_all(snapshot.counts, snapshot.carried)
    counts.bind(states)
    for tensor, value in changes.inputs:
        tensor.fill_(value)
    books.load_counters(groups, changes.counters, largest_count=0)
    books.hyper.forget_loaded()
    for number in changes.numbers:
        _write(groups[number.group], books.hyper.rows[number.group].cells[number.slot], number)
    books.collect(groups, states)
    engine.upload()


def _overwrite(present: Tensor, saved: Tensor) -> None:
    # An inference tensor is written in its own mode only.
    with torch.inference_mode(present.is_inference()), torch.no_grad():
        present.copy_(saved)


def _write(group: dict[str, Any], cell: Cell, number: Number) -> None:
    host = read_group(group, number.slot)
    if isinstance(host, Tensor):
        host.fill_(number.value)
    else:
        key, entry = written(group, number.slot, number.value)
        group[key] = entry
    if number.overrides:  # the caller wrote it before the snapshot, and was warned then
        cell.mirror, cell.warned = number.mirror, True
