"""Hyperparameters: numbers, tensors or schedules, and their mirrors in ``param_groups``.

torch's world reads and writes host numbers in ``param_groups``. A scheduled value is mirrored
there; a number that the caller writes over a mirror leads, as long as it differs from it.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lrfused.options import Slot
from lrfused.schedules import Schedule
from lrfused.schedules import input as schedule_input

Value = float | Tensor | Schedule
IN_GROUPS = (Slot.LR, Slot.WEIGHT_DECAY, Slot.BETA1, Slot.BETA2, Slot.EPS)
BETAS = (Slot.BETA1, Slot.BETA2)


@dataclass
class Cell:
    """Where one hyperparameter of one group comes from.

    A number: no schedule. A tensor in the group itself (``lr``, as torch has it): a schedule
    that reads it, and no mirror. Anything else scheduled: ``mirror`` is the number that was
    last written to the group.
    """

    schedule: Schedule | None = None
    value: float = 0.0
    tensor: Tensor | None = None
    mirror: float | None = None
    warned: bool = False


def read_group(group: dict[str, Any], slot: Slot) -> Any:
    """The caller's side of a hyperparameter."""
    if slot in BETAS:
        return group["betas"][slot - Slot.BETA1]
    return group[slot.name.lower()]


def write_group(group: dict[str, Any], slot: Slot, value: float) -> None:
    """Change the caller's side of a hyperparameter."""
    if slot in BETAS:
        betas = list(group["betas"])
        betas[slot - Slot.BETA1] = value
        group["betas"] = tuple(betas)
    else:
        group[slot.name.lower()] = value


class Hyperparameters:
    """The matrix of cells, a row a group, a column a :class:`Slot`."""

    def __init__(self) -> None:
        self.rows: list[list[Cell]] = []
        self.values = np.zeros((0, len(Slot)))
        self.given = np.ones((0, len(Slot)), dtype=bool)

    def add_group(self, sources: dict[Slot, Value]) -> None:
        """A row from the constructor's values; a slot that is left out never limits anything."""
        row = []
        for slot in Slot:
            source = sources.get(slot, float("inf"))
            if isinstance(source, Tensor):
                in_group = slot == Slot.LR
                row.append(
                    Cell(
                        schedule_input(source, slot.name.lower()),
                        tensor=source if in_group else None,
                    )
                )
            elif isinstance(source, Schedule):
                row.append(Cell(source))
            else:
                row.append(Cell(value=float(source)))
        self.rows.append(row)
        self.values = np.vstack([self.values, [[cell.value for cell in row]]])
        self.given = np.vstack([self.given, [[cell.schedule is None for cell in row]]])

    def replace(self, g: int, slot: Slot, schedule: Schedule) -> None:
        """Another schedule for one place."""
        self.rows[g][slot] = Cell(schedule)
        self.given[g, slot] = False

    def cells(self) -> Iterator[tuple[int, Slot, Cell]]:
        """Every cell with its place."""
        for g, row in enumerate(self.rows):
            for slot, cell in zip(Slot, row, strict=True):
                yield g, slot, cell

    @property
    def programs(self) -> list[tuple[int, Slot, Schedule]]:
        """The places that a program fills."""
        return [(g, s, c.schedule) for g, s, c in self.cells() if c.schedule is not None]

    def mirror(self, groups: list[dict[str, Any]], step: int, reset: bool = False) -> None:
        """Write the schedules' values at ``step`` to the groups, except over a caller's value.

        With ``reset`` over everything: what stands there was loaded, not written by a caller.
        """
        for g, row in enumerate(self.rows):
            for slot in IN_GROUPS:
                cell = row[slot]
                if cell.schedule is None or cell.tensor is not None:
                    continue
                if reset or cell.mirror is None or read_group(groups[g], slot) == cell.mirror:
                    cell.mirror = cell.schedule(step)
                    write_group(groups[g], slot, cell.mirror)

    def collect(self, groups: list[dict[str, Any]]) -> bool:
        """Take in what the caller wrote; True if a cell changed its kind (new programs)."""
        changed = False
        for g, row in enumerate(self.rows):
            for slot in IN_GROUPS:
                cell, host = row[slot], read_group(groups[g], slot)
                if isinstance(host, Tensor):
                    if host is not cell.tensor:
                        row[slot] = Cell(schedule_input(host, slot.name.lower()), tensor=host)
                        self.given[g, slot] = False
                        changed = True
                    continue
                if cell.tensor is not None:
                    row[slot] = cell = Cell()
                    changed = True
                leads = cell.schedule is not None and host == cell.mirror
                self.given[g, slot] = not leads
                if not leads:
                    self.values[g, slot] = host
                    self._warn(cell, g, slot, host)
        return changed

    @staticmethod
    def _warn(cell: Cell, g: int, slot: Slot, host: float) -> None:
        if cell.schedule is not None and not cell.warned:
            cell.warned = True
            warnings.warn(
                f"param_groups[{g}]: {slot.name.lower()} was set to {host} and overrides its "
                f"schedule until the mirrored value {cell.mirror} is written back",
                stacklevel=4,
            )

    def evaluate(self, step: int) -> np.ndarray:
        """The matrix at a step, by the NumPy evaluator."""
        matrix = self.values.copy()
        for g, slot, schedule in self.programs:
            if not self.given[g, slot]:
                steps = np.array([step], dtype=np.float64)
                value = schedule.program.evaluate(steps, schedule._input_values())
                matrix[g, slot] = value[0]
        return matrix
