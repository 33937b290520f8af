"""What a native Step is made from: csrc/host/read.h reads it."""

from typing import Any

import torch

from lrfused.backends.work import Work
from lrfused.memory.formats import CODES
from lrfused.memory.operands import Entry, Operand
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.schedules.bytecode import Program
from lrfused.schedules.payloads import INPUT_CODES
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot


def description(work: Work) -> tuple[Any, ...]:
    """Tensors, groups, options, programs, state."""
    tensors = [_tensor(work.rule, entry) for entry in work.entries]
    groups = [_group(work.rule, options) for options in work.groups]
    programs = [_schedule(work, *place) for place in work.hyper.programs]
    addresses = {name: tensor.data_ptr() for name, tensor in work.state_tensors.items()}
    return tensors, groups, _options(work), programs, addresses


def _typed_pointer(operand: Operand | None) -> tuple[int, int]:
    """(address, dtype code) of a vector."""
    if operand is None:
        return (0, CODES[torch.float32])
    return (operand.flat.data_ptr(), CODES[operand.flat.dtype])


def _tensor(rule: UpdateRule, entry: Entry) -> dict[str, Any]:
    return {
        "p": _typed_pointer(entry.p),
        "operands": [_typed_pointer(operand) for operand in entry.state[: len(rule.operands)]],
        "average": _typed_pointer(entry.average),
        "mask": 0 if entry.mask is None else entry.mask.data_ptr(),
        "count": entry.p.flat.numel(),
        "unit": entry.unit,
        "group": entry.group,
    }


def _group(rule: UpdateRule, options: GroupOptions) -> dict[str, Any]:
    return {
        "maximize": options.maximize,
        "value_clip": options.value_clip,
        "agc": int(options.agc),
        "start_step": options.start_step,
        "average_every": options.average_every,
        "operands": rule.operands_used(options),
        "ranges": [int(rule.range_of(slot, options)) for slot in Slot],
        "scalars": _program(rule.program(options)),
    }


def _options(work: Work) -> dict[str, Any]:
    options = work.options
    return {
        **vars(options),
        "rule": work.rule.name,
        "scalars": list(work.rule.scalars),
        "slots": len(Slot),
        "carried": len(work.rule.carried),
        "measures": options.measures(work.groups),
        "checks_gradients": options.checks_gradients,
        "raises_on_gradients": options.raises_on_gradients,
    }


def _schedule(work: Work, group: int, slot: Slot, schedule: Schedule) -> dict[str, Any]:
    tensors = map(work.input, schedule.inputs)
    inputs = [(tensor.data_ptr(), INPUT_CODES[tensor.dtype]) for tensor in tensors]
    return {"group": group, "slot": int(slot), **_program(schedule.program), "inputs": inputs}


def _program(program: Program) -> dict[str, Any]:
    return {
        "code": program.code,
        "constants": program.constants,
        "samples": program.table.tolist(),
        "inputs": [],
        "results": program.results,
    }
