"""Products of betas that did not travel with a parameter: computed again, or estimated."""

from typing import Any

import numpy as np

from lrfused.cells import BETAS, Cell, Settings, read_group
from lrfused.counts import Pair, power
from lrfused.options import BiasCorrection
from lrfused.warn import warn

BLOCK = 65536
LONGEST = 2**24  # steps that are multiplied; no beta in use has a product other than 0 after them


class Recomputed:
    """The products of groups with a bias correction by product, and whether they are certain.

    A parameter that was updated at each step has met the betas of all steps. One that came late or
    was left out has not, and if betas are scheduled nobody knows which it met: its last ones, say.
    """

    def __init__(self, groups: list[dict[str, Any]], rows: list[Settings], step: int):
        self._groups, self._rows, self._step = groups, rows, step
        self._known: dict[tuple[int, int], Pair] = {}
        self._estimated: set[int] = set()

    def __call__(self, g: int, count: int) -> Pair:
        """The products of a parameter of group ``g`` after so many updates."""
        if (g, count) not in self._known:
            self._known[g, count] = self._of(g, count)
        return self._known[g, count]

    def _of(self, g: int, count: int) -> Pair:
        betas = [_number(read_group(self._groups[g], slot)) for slot in BETAS]
        if self._rows[g].options.bias_correction == BiasCorrection.POWER:
            return power(betas[0], count), power(betas[1], count)
        cells = [self._rows[g].cells[slot] for slot in BETAS]
        first = max(self._step - count, 0)
        pairs = zip(cells, betas, strict=True)
        products = [_product(cell, beta, first, count) for cell, beta in pairs]
        moving = [cell.source for cell in cells if cell.source is not None]
        if (
            moving
            and count
            and (count != self._step or any(schedule.inputs for schedule in moving))
        ):
            self._estimated.add(g)
        return products[0], products[1]

    def warn(self, where: str) -> None:
        """Say what was estimated."""
        if self._estimated:
            groups = ", ".join(map(str, sorted(self._estimated)))
            warn(
                f"{where}: the products of betas (bias_correction='product') of parameters in "
                f"group {groups} are not there, and their counts or inputs do not tell which betas "
                "they met: estimated from the schedules' values in their last steps"
            )


def _product(cell: Cell, beta: float, first: int, count: int) -> float:
    """One multiplication after the other, as a step does it."""
    product, end = 1.0, first + min(count, LONGEST)
    while first < end and product > 0.0:  # nor with a beta that is nan
        steps = np.arange(first, min(first + BLOCK, end), dtype=np.float64)
        if cell.source is None:
            values = np.full_like(steps, beta)
        else:
            values = cell.source.program.evaluate(steps, cell.source._input_values())
        product = float(np.multiply.accumulate(np.concatenate(([product], values)))[-1])
        first += len(steps)
    return product if 0.0 <= product <= 1.0 else 0.0


def _number(value: Any) -> float:
    """As a float; nan if it is none, of which nothing is a power."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError, NotImplementedError):
        return float("nan")
