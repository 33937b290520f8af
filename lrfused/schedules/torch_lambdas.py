"""LambdaLR sampled: groups that share a function and differ in their base lr share its table."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.optim.lr_scheduler import LambdaLR

from lrfused.schedules.expression import Schedule
from lrfused.schedules.leaves import table
from lrfused.schedules.payloads import table_payload
from lrfused.schedules.torch_copies import copied, values_in

Column = NDArray[np.float64]

# A float times one of these is the product of two float64, as a schedule computes it.
EXACT = {float, int, bool, np.float64}


def sampled_functions(scheduler: Any, steps: int) -> list[Schedule] | None:
    """The lr of each group under a LambdaLR; each of its functions is sampled once, by itself.

    LambdaLR writes base_lr * function(step): base_lr times a table is the same, bit for bit. None
    if that is not certain: another scheduler, numbers that are not float64, a function with other
    values when it is called again.
    """
    if type(scheduler) is not LambdaLR or {*map(type, scheduler.base_lrs)} != {float}:
        return None
    functions = copied(scheduler).lr_lambdas
    columns: dict[int, Column] = {}
    for function in functions:
        if id(function) not in columns:
            column = _column(function, steps)
            if column is None:
                return None
            columns[id(function)] = column
    bases = map(float, scheduler.base_lrs)
    factors = [(base, columns[id(f)]) for base, f in zip(bases, functions, strict=True)]
    if [base * column[0] for base, column in factors] != values_in(scheduler.optimizer, "lr"):
        return None
    with np.errstate(over="ignore"):
        if not all(np.isfinite(base * np.abs(column).max()) for base, column in factors):
            return None
    return _products(factors)


def _column(function: Callable[[int], Any], steps: int) -> Column | None:
    """The function's values at steps 0 to ``steps``; None if they cannot be a table."""
    try:
        found = [function(step) for step in range(steps + 1)]
        again = function(steps)
    except ZeroDivisionError:  # stepping the scheduler says at which step
        return None
    if not {*map(type, (*found, again))} <= EXACT or again != found[-1]:
        return None
    column = np.array(found, dtype=np.float64)
    return table_payload(column) if np.isfinite(column).all() else None


def _products(factors: list[tuple[float, Column]]) -> list[Schedule]:
    """Each base times its column: as a table of its own where no other base shares the column."""
    bases: dict[int, set[float]] = {}
    for base, column in factors:
        bases.setdefault(id(column), set()).add(base if column.any() else 0.0)
    shared = {id(column): table(column) for _, column in factors}
    return [
        shared[id(column)].scaled(base) if len(bases[id(column)]) > 1 else table(base * column)
        for base, column in factors
    ]
