"""Creates the node of an operation."""

from typing import Any

import numpy as np

from lrfused.schedules.bytecode import ARITY, FUNCTIONS, Op
from lrfused.schedules.nodes import CONSTANT, N


def apply(op: Op, *arguments: N, payload: Any = None) -> N:
    """The node of an operation, of the same class as its arguments.

    An operation on constants is folded, by the evaluator's own function.
    """
    make = type(arguments[0])
    if all(a._kind == CONSTANT for a in arguments) and op != Op.TABLE:
        with np.errstate(all="ignore"):
            operands = [np.array([a._payload]) for a in arguments]
            return make(CONSTANT, payload=float(FUNCTIONS[op](*operands)[0]))
    assert len(arguments) == ARITY[op]
    return make(op, arguments, payload)
