"""Programs that no expression was compiled to."""

import numpy as np

from lrfused.schedules.bytecode import ARITY, Op, Program


def single(op, *operands, table=()):
    """A program of one instruction: the first operand is the step, the rest are constants."""
    registers = [*range(ARITY[op]), 0, 0][:3]
    if op == Op.TABLE:
        registers, operands = [0, 1, 2], (0.0, float(len(table)))
    code = ((int(op), *registers),)
    return Program(code, operands, (), (len(operands) + 1,), np.array(table, dtype=np.float64))
