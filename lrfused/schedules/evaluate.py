"""Evaluates a program at one step on the host: in C++ if that is built, else in NumPy."""

import numpy as np

from lrfused.native import cpu
from lrfused.schedules.bytecode import Program


def evaluate_one(program: Program, step: int, inputs: tuple[float, ...]) -> float:
    """The float64 value at a step; both evaluators give the same bits."""
    if cpu is not None:
        return float(
            cpu.evaluate(
                program.code,
                [float(step), *program.constants, *inputs],
                program.result,
                program.table,
            )
        )
    return float(program.evaluate(np.array([step], dtype=np.float64), inputs)[0])
