"""Hyperparameters: numbers, tensors or schedules, and their mirrors in ``param_groups``.

torch's world reads and writes host numbers in ``param_groups``. A scheduled value is mirrored
there; a number that the caller writes over a mirror leads, as long as it differs from it.
"""

import numbers
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lrfused.evaluate import evaluate_one
from lrfused.options import Slot
from lrfused.schedules import Schedule
from lrfused.schedules import input as schedule_input
from lrfused.warn import warn

Value = float | Tensor | Schedule
IN_GROUPS = (Slot.LR, Slot.WEIGHT_DECAY, Slot.BETA1, Slot.BETA2, Slot.EPS)
BETAS = (Slot.BETA1, Slot.BETA2)
# What a caller may write to a group and the step has to know.
WATCHED = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")


@dataclass
class Cell:
    """Where one hyperparameter of one group comes from.

    ``schedule`` is what the constructor was given, if it was not a number; ``mirror`` the number
    that was last written to the group for it. ``tensor`` is one that stands in the group itself
    (``lr``, as torch has it, or written there by the caller), read by ``reader``; it leads.
    """

    schedule: Schedule | None = None
    value: float = 0.0
    mirror: float | None = None
    tensor: Tensor | None = None
    reader: Schedule | None = None
    warned: bool = False

    def read_from(self, tensor: Tensor | None, slot: Slot) -> None:
        """Another tensor in the group, or none any more."""
        reader = None if tensor is None else schedule_input(tensor, slot.name.lower())
        self.tensor, self.reader = tensor, reader

    @property
    def source(self) -> Schedule | None:
        """What a program is needed for."""
        return self.schedule if self.reader is None else self.reader


def read_group(group: dict[str, Any], slot: Slot) -> Any:
    """The caller's side of a hyperparameter."""
    if slot in BETAS:
        return group["betas"][slot - Slot.BETA1]
    return group[slot.name.lower()]


def written(group: dict[str, Any], slot: Slot, value: float) -> tuple[str, Any]:
    """The key of the caller's side of a hyperparameter, and what changes it to ``value``."""
    if slot not in BETAS:
        return slot.name.lower(), value
    betas = list(group["betas"])
    betas[slot - Slot.BETA1] = value
    return "betas", tuple(betas)


def _checked(g: int, slot: Slot, group: dict[str, Any]) -> Any:
    """What stands in a group, if it can be a hyperparameter."""
    name = "betas" if slot in BETAS else slot.name.lower()
    where = f"param_groups[{g}]: {name}"
    if slot in BETAS and not (isinstance(group[name], (tuple, list)) and len(group[name]) == 2):
        raise TypeError(f"{where} must be a pair, got {group[name]!r}")
    value = read_group(group, slot)
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise TypeError(f"{where} must have one element, got shape {tuple(value.shape)}")
    elif isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{where} must be a number or a Tensor, got {value!r}")
    return value


def _same(host: Any, mirror: float | None) -> bool:
    """The caller left the mirrored number alone; nan equals itself here."""
    if isinstance(host, Tensor):
        return False
    return bool(host == mirror or (host != host and mirror != mirror))


def _at(schedule: Schedule, step: int, inputs: dict[int, float] | None) -> float:
    """The value at a step, with the inputs' own values unless others are given."""
    if inputs is None:
        return schedule(step)
    known = tuple(inputs[id(node._payload[0])] for node in schedule.inputs)
    return evaluate_one(schedule.program, step, known)


class Hyperparameters:
    """The matrix of cells, a row a group, a column a :class:`Slot`."""

    def __init__(self) -> None:
        self.rows: list[list[Cell]] = []
        self.values = np.zeros((0, len(Slot)))
        self.given = np.ones((0, len(Slot)), dtype=bool)
        self._mirrored: list[tuple[int, Slot, Cell]] = []
        self.mirrored_inputs: list[Tensor] = []

    def add_group(self, sources: dict[Slot, Value]) -> None:
        """A row from the constructor's values; a slot that is left out never limits anything."""
        row = []
        for slot in Slot:
            source = sources.get(slot, float("inf"))
            cell = Cell()
            if isinstance(source, Tensor) and slot == Slot.LR:
                cell.read_from(source, slot)
            elif isinstance(source, Tensor):
                cell.schedule = schedule_input(source, slot.name.lower())
            elif isinstance(source, Schedule):
                cell.schedule = source
            else:
                cell.value = float(source)
            row.append(cell)
        self.rows.append(row)
        self._list_mirrored()
        self.values = np.vstack([self.values, [[cell.value for cell in row]]])
        self.given = np.vstack([self.given, [[cell.source is None for cell in row]]])

    def replace(self, g: int, slot: Slot, schedule: Schedule) -> None:
        """Another schedule for one place."""
        self.rows[g][slot] = Cell(schedule)
        self.given[g, slot] = False
        self._list_mirrored()

    def _list_mirrored(self) -> None:
        self._mirrored = [
            (g, slot, cell)
            for g, slot, cell in self.cells()
            if slot in IN_GROUPS and cell.schedule is not None
        ]
        schedules = [cell.schedule for _, _, cell in self._mirrored if cell.schedule is not None]
        inputs = [node._payload[0] for schedule in schedules for node in schedule.inputs]
        self.mirrored_inputs = list({id(tensor): tensor for tensor in inputs}.values())

    def cells(self) -> Iterator[tuple[int, Slot, Cell]]:
        """Every cell with its place."""
        for g, row in enumerate(self.rows):
            for slot, cell in zip(Slot, row, strict=True):
                yield g, slot, cell

    @property
    def sources(self) -> list[Schedule | None]:
        """The schedule of every place, or None."""
        return [cell.source for row in self.rows for cell in row]

    @property
    def programs(self) -> list[tuple[int, Slot, Schedule]]:
        """The places that a program fills."""
        return [(g, s, c.source) for g, s, c in self.cells() if c.source is not None]

    def mirror(
        self,
        groups: list[dict[str, Any]],
        step: int,
        reset: bool = False,
        values: np.ndarray | None = None,
        inputs: dict[int, float] | None = None,
    ) -> None:
        """Write the schedules' values at ``step`` to the groups, except over a caller's value.

        With ``reset`` over everything: what stands there was loaded, not written by a caller.
        ``values`` is the matrix at ``step``, if the backend has it already; ``inputs`` what the
        schedules' inputs hold, by tensor, where nobody may ask the device.
        """
        for g, slot, cell in self._mirrored:
            if cell.schedule is None or cell.tensor is not None:
                continue
            if reset or cell.mirror is None or _same(read_group(groups[g], slot), cell.mirror):
                if values is not None:
                    value = values.item(g, slot)
                else:
                    value = _at(cell.schedule, step, inputs)
                key, stored = written(groups[g], slot, value)
                # Together: an interrupt between the two would look like a caller's value.
                cell.mirror, groups[g][key] = value, stored

    def collect(self, groups: list[dict[str, Any]]) -> None:
        """Take in what the caller wrote; a tensor in place of another changes ``sources``.

        Raises:
            TypeError: something that is not a number or a tensor stands in a group.
        """
        hosts = [[_checked(g, slot, group) for slot in IN_GROUPS] for g, group in enumerate(groups)]
        for g, row in enumerate(self.rows):
            for slot, host in zip(IN_GROUPS, hosts[g], strict=True):
                cell = row[slot]
                tensor = host if isinstance(host, Tensor) else None
                if tensor is not cell.tensor:
                    cell.read_from(tensor, slot)
                mirrored = cell.schedule is not None and _same(host, cell.mirror)
                leads = tensor is not None or mirrored
                self.given[g, slot] = not leads
                if not leads:
                    self.values[g, slot] = host
                if cell.schedule is not None and not mirrored:
                    self._warn(cell, g, slot, host)

    @staticmethod
    def _warn(cell: Cell, g: int, slot: Slot, host: Any) -> None:
        if not cell.warned:
            cell.warned = True
            warn(
                f"param_groups[{g}]: {slot.name.lower()} was set to {host} and overrides its "
                f"schedule until the mirrored value {cell.mirror} is written back"
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
