"""Compiles schedules to a Program: one instruction for each distinct node."""

from collections.abc import Sequence

import numpy as np

from lrfused.schedules.bytecode import MAX_INSTRUCTIONS, Op, Program
from lrfused.schedules.nodes import CONSTANT, INPUT, STEP, VARIABLE, Node, nodes_in_order


def compile_all(roots: Sequence[Node], variables: int = 0) -> Program:
    """Compile several schedules to one program, which reads either inputs or ``variables``.

    Raises:
        ValueError: the program needs more than 256 instructions.
    """
    order = nodes_in_order(*roots)
    constants = [n._payload for n in order if n._kind == CONSTANT]
    names = [n._payload[1] for n in order if n._kind == INPUT]
    operations = [n for n in order if n._kind not in (STEP, CONSTANT, INPUT, VARIABLE)]
    tables = [n._payload for n in operations if n._kind == Op.TABLE]
    if len(operations) > MAX_INSTRUCTIONS:
        raise ValueError(
            f"schedule: needs {len(operations)} instructions, the limit is {MAX_INSTRUCTIONS}; "
            f"sample it with from_function(fn, steps) instead"
        )
    # A table's offset and length are constants too: two registers after the named ones.
    first_of_tables = 1 + len(constants)
    offset = 0
    for values in tables:
        constants += [float(offset), float(len(values))]
        offset += len(values)
    registers: dict[int, int] = {}
    leaves = {CONSTANT: 1, INPUT: 1 + len(constants)}
    for node in order:
        if node._kind == STEP:
            registers[id(node)] = 0
        elif node._kind in leaves:
            registers[id(node)] = leaves[node._kind]
            leaves[node._kind] += 1
        elif node._kind == VARIABLE:
            registers[id(node)] = 1 + len(constants) + node._payload
    code: list[tuple[int, int, int, int]] = []
    first = 1 + len(constants) + len(names) + variables
    for node in operations:
        operands = [registers[id(a)] for a in node._arguments]
        if node._kind == Op.TABLE:
            operands += [first_of_tables, first_of_tables + 1]
            first_of_tables += 2
        a, b, c = (operands + [0, 0])[:3]
        registers[id(node)] = first + len(code)
        code.append((int(node._kind), a, b, c))
    return Program(
        code=tuple(code),
        constants=tuple(constants),
        names=tuple(names),
        results=tuple(registers[id(root)] for root in roots),
        table=np.concatenate(tables) if tables else np.zeros(0),
    )
