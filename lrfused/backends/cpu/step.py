"""The C++ backend: the table's pointers and the options, handed to ``lrfused._cpu``."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrfused import native
from lrfused.backends.work import Outcome, Work
from lrfused.memory.operands import DTYPES, Operand
from lrfused.schedules.payloads import INPUT_DTYPES
from lrfused.settings.options import Options

CODES = {dtype: code for code, dtype in enumerate(DTYPES)}
INPUT_CODES = {dtype: code for code, dtype in enumerate(INPUT_DTYPES)}


def _stretch(operand: Operand | None) -> tuple[int, int]:
    """(address, dtype code) of a vector."""
    if operand is None:
        return (0, CODES[torch.float32])
    return (operand.flat.data_ptr(), CODES[operand.flat.dtype])


class CpuStep:
    """One table, ready to be stepped by the C++ kernels."""

    def __init__(self, work: Work, instruction_set: str = "auto"):
        assert native.cpu is not None
        self.instruction_set = instruction_set
        self.next_values = np.zeros_like(work.hyper.values)
        self.step = native.cpu.Step(*description(work))

    def __call__(self, work: Work) -> Outcome:
        """One step over the gradients in ``work.addresses``."""
        error, proceeded, step = self.step.run(
            work.addresses,
            work.hyper.values,
            work.hyper.given,
            self.next_values,
            work.grad_scale,
            work.found_inf,
            torch.get_num_threads(),
            self.instruction_set,
        )
        if proceeded:
            increment_versions(work.moving)
        return Outcome(error, step, self.next_values)


def increment_versions(tensors: list[Tensor]) -> None:
    """Tell autograd that saved parameters are no longer what they were."""
    torch.autograd.graph.increment_version(tensors)  # inference tensors have no version


def description(work: Work) -> tuple[Any, ...]:
    """What a native Step is made from: tensors, groups, options, programs, state."""
    state, counts = work.state, work.state.tensors
    tensors = [
        {
            "p": _stretch(e.p),
            "m": _stretch(e.m),
            "v": _stretch(e.v),
            "x": _stretch(e.x),
            "count": e.p.flat.numel(),
            "unit": e.unit,
            "group": e.group,
        }
        for e in work.entries
    ]
    addresses = {
        "words": state.words.data_ptr(),
        "loss_scale": state.loss_scale.data_ptr(),
        "counts": counts.counts.data_ptr(),
        "steps": counts.steps.data_ptr(),
        "products": counts.products.data_ptr(),
    }
    groups = [vars(group) for group in work.groups]
    return tensors, groups, _options(work.options, work), _programs(work), addresses


def _options(options: Options, work: Work) -> dict[str, Any]:
    return {
        **vars(options),
        "measures": options.measures(work.groups),
        "checks_gradients": options.checks_gradients,
        "raises_on_gradients": options.raises_on_gradients,
    }


def _programs(work: Work) -> list[dict[str, Any]]:
    return [
        {
            "group": g,
            "slot": int(slot),
            "code": schedule.program.code,
            "constants": schedule.program.constants,
            "table": schedule.program.table.tolist(),
            "inputs": [
                (tensor.data_ptr(), INPUT_CODES[tensor.dtype])
                for tensor in map(work.input, schedule.inputs)
            ],
            "result": schedule.program.result,
        }
        for g, slot, schedule in work.hyper.programs
    ]
