"""Compiles schedules to a Program: one instruction for each distinct node."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lrfused.schedules.bytecode import MAX_INSTRUCTIONS, Op, Program
from lrfused.schedules.nodes import CONSTANT, INPUT, STEP, VARIABLE, Node, nodes_in_order

Code = tuple[tuple[int, int, int, int], ...]
NO_TABLE = np.zeros(0)


def compile_all(roots: Sequence[Node], variables: int = 0) -> Program:
    """Compile several schedules to one program, which reads either inputs or ``variables``.

    Raises:
        ValueError: the program needs more than 256 instructions.
    """
    order = nodes_in_order(*roots)
    operations = [n for n in order if n._arguments]
    if len(operations) > MAX_INSTRUCTIONS:
        raise ValueError(
            f"schedule: needs {len(operations)} instructions, the limit is {MAX_INSTRUCTIONS}; "
            f"sample it with from_function(fn, steps) instead"
        )
    leaves = [n for n in order if not n._arguments]
    constants = [n._payload for n in leaves if n._kind == CONSTANT]
    names = [n._payload[1] for n in leaves if n._kind == INPUT]
    # A table's offset and length are constants too: two registers after the named ones.
    first_of_tables = 1 + len(constants)
    table, places = _joined([n._payload for n in operations if n._kind == Op.TABLE])
    constants += places
    registers = _registers_of_leaves(leaves, len(constants))
    first = 1 + len(constants) + len(names) + variables
    code: list[tuple[int, int, int, int]] = []
    for register, node in enumerate(operations, first):
        operands = [registers[id(a)] for a in node._arguments]
        if node._kind == Op.TABLE:
            operands += [first_of_tables, first_of_tables + 1]
            first_of_tables += 2
        a, b, c = (*operands, 0, 0)[:3]
        registers[id(node)] = register
        code.append((int(node._kind), a, b, c))
    return Program(
        code=_shared(tuple(code)),
        constants=tuple(constants),
        names=tuple(names),
        results=tuple(registers[id(root)] for root in roots),
        table=table,
    )


def _registers_of_leaves(leaves: Sequence[Node], constants: int) -> dict[int, int]:
    """The registers of the step, the constants, and the inputs or variables, by the nodes' ids."""
    following = {CONSTANT: 1, INPUT: 1 + constants}
    registers: dict[int, int] = {}
    for node in leaves:
        if node._kind == STEP:
            registers[id(node)] = 0
        elif node._kind == VARIABLE:
            registers[id(node)] = 1 + constants + node._payload
        else:
            registers[id(node)] = following[node._kind]
            following[node._kind] += 1
    return registers


def _joined(tables: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], list[float]]:
    """All tables as one, and the offset and length of each; a single one is not copied."""
    places, offset = [], 0
    for values in tables:
        places += [float(offset), float(len(values))]
        offset += len(values)
    if len(tables) == 1:
        return tables[0], places
    return (np.concatenate(tables) if tables else NO_TABLE), places


@lru_cache(maxsize=1024)
def _shared(code: Code) -> Code:
    """The one object for equal code: thousands of groups often differ in their constants only."""
    return code
