"""Functions on schedules: comparisons, select, roots, exponentials, cosine."""

from lrfused.schedules.bytecode import Op
from lrfused.schedules.expression import Schedule, as_schedule
from lrfused.schedules.operations import apply


def minimum(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """The smaller of two values; nan where either is nan."""
    return apply(Op.MIN, as_schedule(x), as_schedule(y))


def maximum(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """The larger of two values; nan where either is nan."""
    return apply(Op.MAX, as_schedule(x), as_schedule(y))


def less(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """1 where x < y, else 0: a condition for :func:`select`."""
    return apply(Op.LESS, as_schedule(x), as_schedule(y))


def less_equal(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """1 where x <= y, else 0."""
    return apply(Op.LESS_EQUAL, as_schedule(x), as_schedule(y))


def equal(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """1 where x == y, else 0."""
    return apply(Op.EQUAL, as_schedule(x), as_schedule(y))


def select(
    condition: Schedule, if_true: "Schedule | float", if_false: "Schedule | float"
) -> Schedule:
    """``if_true`` where the condition is not 0, else ``if_false``; the other one is discarded.

    Example:
        >>> from lrfused.schedules import less, select, step
        >>> drop = select(less(step, 100), 1e-3, 1e-4)
        >>> drop(99), drop(100)
        (0.001, 0.0001)
    """
    return apply(Op.SELECT, as_schedule(condition), as_schedule(if_true), as_schedule(if_false))


def floor(x: "Schedule | float") -> Schedule:
    """The largest whole number <= x."""
    return apply(Op.FLOOR, as_schedule(x))


def sqrt(x: "Schedule | float") -> Schedule:
    """The square root; nan below 0."""
    return apply(Op.SQRT, as_schedule(x))


def exp(x: "Schedule | float") -> Schedule:
    """e to the x, within 2 ulp."""
    return apply(Op.EXP, as_schedule(x))


def log(x: "Schedule | float") -> Schedule:
    """The natural logarithm, within 2 ulp; -inf at 0, nan below."""
    return apply(Op.LOG, as_schedule(x))


def cos(x: "Schedule | float") -> Schedule:
    """The cosine of any finite x in radians, within 2 ulp."""
    return apply(Op.COS, as_schedule(x))
