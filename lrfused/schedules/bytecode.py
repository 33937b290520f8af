"""Programs: the compiled form of schedules, and their evaluation in NumPy.

A program is a list of simple instructions over registers. Registers 0 to n - 1 are filled by
the caller: the step, then the constants, then the values of the inputs; instruction i writes
register n + i. A compiler only needs its *shape* (the instructions); constants, table and inputs
are data. ``csrc/core/program.h`` evaluates the same programs with the same results, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from lrfused.numerics import elementary
from lrfused.numerics.elementary import Floats

MAX_INSTRUCTIONS = 256


class Op(IntEnum):
    """The operations, with their arity below; the numbers must match csrc/core/program.h."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    POW = 4
    MOD = 5
    MIN = 6
    MAX = 7
    LESS = 8
    LESS_EQUAL = 9
    EQUAL = 10
    SELECT = 11
    FLOOR = 12
    SQRT = 13
    EXP = 14
    LOG = 15
    COS = 16
    TABLE = 17


def _modulo(x: Floats, y: Floats) -> Floats:
    return x - y * np.floor(x / y)


def _minimum(x: Floats, y: Floats) -> Floats:
    return np.where((x < y) | np.isnan(x), x, y)


def _maximum(x: Floats, y: Floats) -> Floats:
    return np.where((x > y) | np.isnan(x), x, y)


def _select(condition: Floats, x: Floats, y: Floats) -> Floats:
    return np.where(condition != 0.0, x, y)


FUNCTIONS: dict[Op, Callable[..., Floats]] = {
    Op.ADD: lambda x, y: x + y,
    Op.SUB: lambda x, y: x - y,
    Op.MUL: lambda x, y: x * y,
    Op.DIV: lambda x, y: x / y,
    Op.POW: elementary.power,
    Op.MOD: _modulo,
    Op.MIN: _minimum,
    Op.MAX: _maximum,
    Op.LESS: lambda x, y: (x < y).astype(np.float64),
    Op.LESS_EQUAL: lambda x, y: (x <= y).astype(np.float64),
    Op.EQUAL: lambda x, y: (x == y).astype(np.float64),
    Op.SELECT: _select,
    Op.FLOOR: np.floor,
    Op.SQRT: np.sqrt,
    Op.EXP: elementary.exp,
    Op.LOG: elementary.log,
    Op.COS: elementary.cos,
}

ARITY: dict[Op, int] = {
    **{op: 2 for op in FUNCTIONS},
    **{op: 1 for op in (Op.FLOOR, Op.SQRT, Op.EXP, Op.LOG, Op.COS, Op.TABLE)},
    Op.SELECT: 3,
}


def _interpolate(position: Floats, offset: Floats, length: Floats, table: Floats) -> Floats:
    """The table's value at a position: linear between entries, constant outside."""
    last = length - 1.0
    held = np.where(position < 0.0, 0.0, np.where(position > last, last, position))
    below = np.floor(np.where(np.isnan(held), 0.0, held))
    fraction = held - below
    first = (offset + below).astype(np.int64)
    second = (offset + np.where(below < last, below + 1.0, last)).astype(np.int64)
    x, y = table[first], table[second]
    return np.where(fraction == 0.0, x, x + (y - x) * fraction)


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled schedule: ``code`` rows are (operation, operand, operand, operand).

    ``names`` are those of the inputs, in register order; ``results`` are the registers of the
    values, one per schedule. A TABLE row's second and third operands are the registers with its
    offset and length in ``table``.
    """

    code: tuple[tuple[int, int, int, int], ...]
    constants: tuple[float, ...]
    names: tuple[str, ...]
    results: tuple[int, ...]
    table: NDArray[np.float64]

    @property
    def shape(self) -> tuple[object, ...]:
        """The program without its data: programs of equal shape are compiled once."""
        return (self.code, len(self.constants), len(self.names), self.results)

    @property
    def result(self) -> int:
        """The register of a schedule's value."""
        return self.results[0]

    def evaluate(self, steps: Floats, inputs: tuple[float, ...] = ()) -> Floats:
        """The float64 values at an array of steps, in NumPy; never raises."""
        return self.evaluate_all(steps, inputs)[0]

    def evaluate_all(self, steps: Floats, inputs: tuple[float, ...] = ()) -> list[Floats]:
        """The values of all results, each at an array of steps."""
        with np.errstate(all="ignore"):
            registers = [np.asarray(steps, dtype=np.float64)]
            registers += [np.full_like(registers[0], c) for c in (*self.constants, *inputs)]
            for op, a, b, c in self.code:
                if op == Op.TABLE:
                    x = _interpolate(registers[a], registers[b], registers[c], self.table)
                else:
                    x = FUNCTIONS[Op(op)](*(registers[i] for i in (a, b, c)[: ARITY[Op(op)]]))
                registers.append(x)
            return [registers[i] for i in self.results]
