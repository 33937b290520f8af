# mypy: ignore-errors
"""Programs in Triton: the shape is a compile-time constant, everything else is data.

Programs of one shape are the lanes of one evaluation. A lane's data is a row of 64-bit words:
where its value goes, its table's first word, the constants, and for each input its address and
dtype. Registers are a tuple that grows by one an instruction: the step, the constants, the inputs,
the variables (of a rule's scalars), the results.
"""

import triton
import triton.language as tl

from lrfused.backends.triton.elementary import cos, exp, log, power, power_integer
from lrfused.backends.triton.memory import from_bits, pointer, widen
from lrfused.backends.triton.words import (
    INT32,
    INT64,
    POWER_OF_COUNT,
    ROW_FIXED,
    ROW_TABLE,
    SHAPE_CODE,
    SHAPE_CONSTANTS,
    SHAPE_COUNT,
    SHAPE_INPUTS,
    SHAPE_RESULTS,
)
from lrfused.schedules.bytecode import Op

ADD = tl.constexpr(int(Op.ADD))
SUB = tl.constexpr(int(Op.SUB))
MUL = tl.constexpr(int(Op.MUL))
DIV = tl.constexpr(int(Op.DIV))
POW = tl.constexpr(int(Op.POW))
MOD = tl.constexpr(int(Op.MOD))
MIN = tl.constexpr(int(Op.MIN))
MAX = tl.constexpr(int(Op.MAX))
LESS = tl.constexpr(int(Op.LESS))
LESS_EQUAL = tl.constexpr(int(Op.LESS_EQUAL))
EQUAL = tl.constexpr(int(Op.EQUAL))
SELECT = tl.constexpr(int(Op.SELECT))
FLOOR = tl.constexpr(int(Op.FLOOR))
SQRT = tl.constexpr(int(Op.SQRT))
EXP = tl.constexpr(int(Op.EXP))
LOG = tl.constexpr(int(Op.LOG))
COS = tl.constexpr(int(Op.COS))
TABLE = tl.constexpr(int(Op.TABLE))


@triton.jit
def interpolate(position, offset, length, table, present):
    """A table's value at a position: linear between entries, held outside."""
    last = length - 1.0
    held = tl.where(position < 0.0, 0.0, tl.where(position > last, last, position))
    below = tl.floor(tl.where(held != held, 0.0, held))
    fraction = held - below
    first = (offset + below).to(tl.int64)
    second = (offset + tl.where(below < last, below + 1.0, last)).to(tl.int64)
    x = tl.load(table + first, mask=present, other=0.0)
    y = tl.load(table + second, mask=present, other=0.0)
    return tl.where(fraction == 0.0, x, x + (y - x) * fraction)


@triton.jit
def execute(OP: tl.constexpr, x, y, z, digits, table, present):
    """One instruction; operands that it does not have are never looked at."""
    if OP == ADD:
        result = x + y
    elif OP == SUB:
        result = x - y
    elif OP == MUL:
        result = x * y
    elif OP == DIV:
        result = x / y
    elif OP == POW:
        result = power(x, y)
    elif OP == POWER_OF_COUNT:
        result = power_integer(x, y.to(tl.int64))
    elif OP == MOD:
        result = x - y * tl.floor(x / y)
    elif OP == MIN:
        result = tl.where((x < y) | (x != x), x, y)
    elif OP == MAX:
        result = tl.where((x > y) | (x != x), x, y)
    elif OP == LESS:
        result = (x < y).to(tl.float64)
    elif OP == LESS_EQUAL:
        result = (x <= y).to(tl.float64)
    elif OP == EQUAL:
        result = (x == y).to(tl.float64)
    elif OP == SELECT:
        result = tl.where(x != 0.0, y, z)
    elif OP == FLOOR:
        result = tl.floor(x)
    elif OP == SQRT:
        result = tl.sqrt(x)
    elif OP == EXP:
        result = exp(x)
    elif OP == LOG:
        result = log(x)
    elif OP == COS:
        result = cos(x, digits)
    else:
        tl.static_assert(OP == TABLE)
        result = interpolate(x, y, z, table, present)
    return result


@triton.jit
def read_input(address, dtype, present):
    """The values of scalars of any dtype, in float64."""
    value = tl.full(address.shape, float("nan"), tl.float64)
    for CODE in tl.static_range(INT32 + 1):
        here = present & (dtype == CODE)
        if CODE == INT64:
            typed = address.to(tl.pointer_type(tl.int64))
        elif CODE == INT32:
            typed = address.to(tl.pointer_type(tl.int32))
        else:
            typed = pointer(address, CODE)
        x = widen(tl.load(typed, mask=here, other=0), CODE, True)
        value = tl.where(here, x, value)
    return value


@triton.jit
def evaluate(SHAPES: tl.constexpr, AT: tl.constexpr, rows, present, step, samples, digits):
    """The values of schedules of the shape at SHAPES[AT]; ``rows`` point to the lanes' data.

    Lanes that are not ``present`` compute with zeros; their values are nobody's.
    """
    return evaluate_all(SHAPES, AT, rows, present, step, (), samples, digits)[0]


@triton.jit
def evaluate_all(
    SHAPES: tl.constexpr, AT: tl.constexpr, rows, present, step, variables, samples, digits
):
    """All results of programs of this shape."""
    CONSTANTS: tl.constexpr = SHAPES[AT + SHAPE_CONSTANTS]
    INPUTS: tl.constexpr = SHAPES[AT + SHAPE_INPUTS]
    COUNT: tl.constexpr = SHAPES[AT + SHAPE_COUNT]
    RESULTS: tl.constexpr = SHAPES[AT + SHAPE_RESULTS]
    table = samples + tl.load(rows + ROW_TABLE, mask=present, other=0)
    registers = (step,)
    for i in tl.static_range(CONSTANTS):
        word = tl.load(rows + (ROW_FIXED + i), mask=present, other=0)
        registers = registers + (from_bits(word),)
    for i in tl.static_range(INPUTS):
        place = rows + (ROW_FIXED + CONSTANTS + 2 * i)
        address = tl.load(place, mask=present, other=0)
        dtype = tl.load(place + 1, mask=present, other=-1)
        registers = registers + (read_input(address, dtype, present),)
    registers = registers + variables
    for i in tl.static_range(COUNT):
        x = registers[SHAPES[AT + SHAPE_CODE + 4 * i + 1]]
        y = registers[SHAPES[AT + SHAPE_CODE + 4 * i + 2]]
        z = registers[SHAPES[AT + SHAPE_CODE + 4 * i + 3]]
        value = execute(SHAPES[AT + SHAPE_CODE + 4 * i], x, y, z, digits, table, present)
        registers = registers + (value,)
    results = ()
    for i in tl.static_range(RESULTS):
        results = results + (registers[SHAPES[AT + SHAPE_CODE + 4 * COUNT + i]],)
    return results
