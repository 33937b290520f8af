"""What a native Step is made from: csrc/host/read.h reads it."""

from typing import Any

from lrfused.backends.rows import Rows
from lrfused.backends.work import Place, Work
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.schedules.bytecode import Program
from lrfused.schedules.payloads import INPUT_CODES
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot


def description(work: Work) -> tuple[Any, ...]:
    """Tensors, groups, options, programs, state."""
    programs = [_schedule(work, *place) for place in work.hyper.programs]
    addresses = {name: tensor.data_ptr() for name, tensor in work.state_tensors.items()}
    return work.tensors, _groups(work), _options(work), programs, addresses


def _groups(work: Work) -> tuple[list[dict[str, Any]], list[int]]:
    """Groups of equal options once, and for each group which of them it is."""
    kinds = {options: place for place, options in enumerate(dict.fromkeys(work.groups))}
    described = [_group(work.rule, options) for options in kinds]
    return described, [kinds[options] for options in work.groups]


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


def changes(
    work: Work, indices: list[int], sources: list[Place]
) -> tuple[list[int], Rows, list[dict[str, Any]]]:
    """What a native Step is updated with: rows of tensors, and programs of hyperparameters."""
    programs = [
        _nothing(*place)
        if (schedule := work.source(*place)) is None
        else _schedule(work, *place, schedule)
        for place in sources
    ]
    return indices, work.tensors[indices], programs


def _nothing(group: int, slot: Slot) -> dict[str, Any]:
    """No program: its hyperparameter is a number now."""
    empty: dict[str, Any] = dict.fromkeys(("code", "constants", "samples", "inputs", "results"), ())
    return {"group": group, "slot": int(slot), **empty}


def _schedule(work: Work, group: int, slot: Slot, schedule: Schedule) -> dict[str, Any]:
    tensors = map(work.input, schedule.inputs)
    inputs = [(tensor.data_ptr(), INPUT_CODES[tensor.dtype]) for tensor in tensors]
    return {"group": group, "slot": int(slot), **_program(schedule.program), "inputs": inputs}


def _program(program: Program) -> dict[str, Any]:
    return {
        "code": program.code,
        "constants": program.constants,
        "samples": program.table,
        "inputs": [],
        "results": program.results,
    }
