"""Random expressions (hypothesis strategies)."""

import itertools
import operator

import torch
from hypothesis import strategies as st

from lrfused import schedules as S
from lrfused.schedules.expression import as_schedule

WORST_FOR_COS = 6381956970095103.0 * 2.0**797

SPECIAL = [
    *(0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1.5, -2.5, 0.1, 10.0),
    *(float("inf"), float("-inf"), float("nan")),
    *(5e-324, -5e-324, 2.225073858507201e-308, 2.2250738585072014e-308, 1e-310),
    *(1.7976931348623157e308, -1.7976931348623157e308, 1e300, -1e300, 1e-300),
    *(1.0000000000000002, 0.9999999999999999, -0.9999999999999999),
    *(709.782712893384, 709.7827128933841, 710.5, -745.1332191019411, -745.133219101942, -747.0),
    *(2.0**-30, 2.0**-31, 2.0**31, 2.0**52 + 1, 2.0**53, 2.0**53 - 1, -(2.0**53), 2.0**63),
    *(0.7853981633974483, 1.5707963267948966, 3.141592653589793, WORST_FOR_COS),
]

UNARY = [S.floor, S.sqrt, S.exp, S.log, S.cos]
BINARY = [
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod),
    *(S.minimum, S.maximum, S.less, S.less_equal, S.equal),
]

numbers = st.sampled_from(SPECIAL) | st.floats() | st.floats(-4, 4) | st.integers(-9, 9).map(float)
steps = st.integers(0, 40) | st.integers(0, 2**40)
_unused_name = map("input{}".format, itertools.count())

constants = numbers.map(as_schedule)
inputs = numbers.map(lambda x: S.input(torch.tensor(x, dtype=torch.float64), next(_unused_name)))
tables = st.lists(
    st.floats(-1e3, 1e3) | st.sampled_from([0.0, -0.0, 5e-324, -1e300]), min_size=1, max_size=5
).map(S.table)


@st.composite
def schedules(draw, max_operations=10):
    """An expression with every operation and leaf, whose parts may be used more than once."""
    pool = [S.step, draw(constants), draw(constants), draw(inputs), draw(inputs)]
    for _ in range(draw(st.integers(0, max_operations))):
        operation = draw(st.sampled_from([*UNARY, *BINARY, S.select, "table"]))
        part = st.sampled_from(pool)
        if operation == "table":
            node = draw(tables).at(draw(part))
        elif operation in UNARY:
            node = operation(draw(part))
        elif operation in BINARY:
            node = operation(draw(part), draw(part))
        else:
            node = operation(draw(part), draw(part), draw(part))
        pool.append(node)
    return pool[-1]


def input_values(schedule):
    """What the inputs hold now, in the order of the program's registers."""
    return tuple(node(0) for node in schedule.inputs)
