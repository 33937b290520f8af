"""Carried numbers that are missing from a parameter's state: recomputed, or estimated."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrfused.rules.rule import CarriedNumber, UpdateRule
from lrfused.schedules import Schedule
from lrfused.settings.cells import Settings, number_or_nan, read_group
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot
from lrfused.state.step_counts import Numbers
from lrfused.warn import warn

BLOCK = 65536
LONGEST = 2**24  # steps multiplied at most; for any beta in use the product is 0 by then


class Recovered:
    """Recovers the carried numbers of parameters, and notes where it had to estimate.

    A product of a hyperparameter's values is recomputed: a parameter that was updated at every step
    used the values of all steps. One that was added late or skipped did not, and with a schedule it
    is unknown which values it used: the last ``count`` ones are assumed. ``instead`` are schedules
    that are about to replace those in the rows.
    """

    def __init__(
        self,
        rule: UpdateRule,
        options: list[GroupOptions],
        groups: list[dict[str, Any]],
        rows: list[Settings],
        step: int,
        instead: list[dict[Slot, Schedule]] | None = None,
    ):
        self._rule, self._options, self._groups = rule, options, groups
        self._rows, self._step = rows, step
        self._instead = instead
        self._running: dict[tuple[Schedule | float, int], Running] = {}  # groups often share one
        self._estimated: set[int] = set()

    def __call__(self, g: int, count: int, has_operands: bool) -> Numbers:
        """The carried numbers of a parameter of group ``g`` after ``count`` updates."""
        return tuple(self._one(c, g, count, has_operands) for c in self._rule.carried)

    def _one(self, carried: CarriedNumber, g: int, count: int, has_operands: bool) -> float:
        if carried.slot is None:
            return carried.recovered if has_operands else carried.initial
        if not carried.matters(self._options[g]):
            return carried.initial
        value = number_or_nan(read_group(self._groups[g], carried.slot))
        return self._of(g, carried.slot, value, count)

    def _of(self, g: int, slot: Slot, beta: float, count: int) -> float:
        if count == 0:
            return 1.0
        schedule = self._rows[g].cells[slot].source
        if self._instead is not None:
            schedule = self._instead[g].get(slot, schedule)
        if schedule is not None and (count != self._step or schedule.inputs):
            self._estimated.add(g)
        start = 0 if schedule is None else max(self._step - count, 0)
        key = (beta if schedule is None else schedule, start)
        if key not in self._running:
            self._running[key] = Running(schedule, beta, start)
        return self._running[key].after(count)

    def warn(self, where: str) -> None:
        """Warn about groups whose numbers were estimated."""
        if self._estimated:
            groups = ", ".join(map(str, sorted(self._estimated)))
            warn(
                f"{where}: the products of betas (bias_correction='product') of parameters in "
                f"group {groups} are not there, and their counts or inputs do not tell which betas "
                "they met: estimated from the schedules' values in their last steps"
            )


class Running:
    """Running products of a beta's values from step ``first`` on, one multiplication a step."""

    def __init__(self, schedule: Schedule | None, beta: float, first: int):
        self._schedule, self._beta, self._next = schedule, beta, first
        self._products: NDArray[np.float64] = np.ones(1)

    def after(self, count: int) -> float:
        """The product of the first ``count`` betas."""
        count = min(count, LONGEST)
        while len(self._products) <= count and self._products[-1] > 0.0:  # False for nan, too
            steps = np.arange(self._next, self._next + BLOCK, dtype=np.float64)
            if self._schedule is None:
                values = np.full_like(steps, self._beta)
            else:
                values = self._schedule.program.evaluate(steps, self._schedule._input_values())
            more = np.multiply.accumulate(np.concatenate((self._products[-1:], values)))[1:]
            self._products = np.concatenate((self._products, more))
            self._next += BLOCK
        product = float(self._products[min(count, len(self._products) - 1)])
        return product if 0.0 <= product <= 1.0 else 0.0
