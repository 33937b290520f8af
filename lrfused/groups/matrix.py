"""Hyperparameters: numbers, tensors or schedules, and their mirrors in ``param_groups``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from lrfused.groups.shared_counters import NUMBER, STEP
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.settings.cells import (
    Cell,
    Settings,
    by_layer,
    checked,
    is_known,
    is_zero,
    read_group,
    same,
    schedule_in,
    value_at,
    written,
)
from lrfused.settings.slots import SLOTS, Slot
from lrfused.warn import warn


def torchs_keys(rule: UpdateRule) -> tuple[str, ...]:
    """The keys of a group that a caller may write and a step reads, as with torch's class."""
    keys = dict.fromkeys(slot.key for slot in rule.hyperparameters)
    return (*keys, *rule.switches, "maximize")


def watched_keys(rule: UpdateRule) -> tuple[str, ...]:
    """The same, and those of ours that say whose group it is and which checkpoint it is of."""
    return (*torchs_keys(rule), NUMBER, STEP)


Place = tuple[int, Slot, Cell]


class Hyperparameters:
    """The matrix of cells: a row for each group, in list order, a column for each :class:`Slot`.

    ``version`` rises whenever the list of groups changes, even if the rows stay the same.
    """

    def __init__(self, rule: UpdateRule) -> None:
        self.slots = rule.hyperparameters  # those that groups have
        self.version = 0
        self.rows: list[Settings] = []
        self.values = np.zeros((0, len(Slot)))
        self.is_override = np.ones((0, len(Slot)), dtype=bool)
        self._places: list[Place] | None = []  # of schedules in the groups; None: to be listed
        self.known_step = 0  # of the last call of `mirror`: what the host knows
        self._may_come_again = False
        self.undescribed = False  # the caller wrote a schedule that is not in the groups' texts

    def arrange(self, rows: list[Settings]) -> None:
        """Replace the rows: other groups, or the same in another order."""
        self.version += 1
        if rows == self.rows:
            return
        cells = [cell for row in rows for cell in row.cells]
        self.values = np.array([cell.value for cell in cells]).reshape(-1, len(Slot))
        is_override = np.array([cell.source is None for cell in cells], dtype=bool)
        self.is_override = is_override.reshape(-1, len(Slot))
        self._places = None
        self.rows = rows  # last: after an interrupt before this, all of it is done again

    def show_in(self, group: dict[str, Any], row: Settings) -> None:
        """Mirror the schedules of a group that was just added."""
        for slot in self.slots:
            cell = row.cells[slot]
            if cell.schedule is not None and cell.tensor is None:
                _show(group, slot, cell, cell.schedule(self.known_step))

    def follow(self, g: int, slot: Slot, schedule: Schedule | None) -> None:
        """Set or remove the schedule of one cell."""
        self.rows[g].cells[slot].follow(schedule)
        self.is_override[g, slot] = schedule is None
        self._places = None

    @property
    def _mirrored(self) -> list[Place]:
        """The cells with a schedule that is mirrored in a group."""
        if self._places is None:
            self._places = [
                (g, slot, cell)
                for g, row in enumerate(self.rows)
                for slot in self.slots
                if (cell := row.cells[slot]).schedule is not None
            ]
        return self._places

    @property
    def mirrored_inputs(self) -> list[Tensor]:
        """The tensors that these schedules read."""
        schedules = [cell.schedule for _, _, cell in self._mirrored if cell.schedule is not None]
        inputs = [node._payload[0] for schedule in schedules for node in schedule.inputs]
        return list({id(tensor): tensor for tensor in inputs}.values())

    def cells(self) -> Iterator[tuple[int, Slot, Cell]]:
        """Every cell with its group index and slot."""
        for g, row in enumerate(self.rows):
            for slot, cell in zip(SLOTS, row.cells, strict=True):
                yield g, slot, cell

    @property
    def sources(self) -> list[Schedule | None]:
        """The schedule of every cell, or None."""
        cells = (cell for row in self.rows for cell in row.cells)
        return [cell.schedule if cell.reader is None else cell.reader for cell in cells]

    def schedules_at(self, places: list[tuple[int, Slot]]) -> list[Schedule]:
        """The schedules at these places that have one."""
        sources = [self.rows[g].cells[slot].source for g, slot in places]
        return [source for source in sources if source is not None]

    @property
    def follow_step(self) -> bool:
        """True if some value depends on the step."""
        return any(
            cell.schedule is not None and cell.schedule.depends_on_step
            for _, _, cell in self.cells()
        )

    @property
    def programs(self) -> list[tuple[int, Slot, Schedule]]:
        """The cells that are evaluated from a schedule, with group index and slot."""
        places = zip(self.sources, self.cells(), strict=True)
        return [(g, slot, source) for source, (g, slot, _) in places if source is not None]

    def mirror(
        self,
        groups: list[dict[str, Any]],
        step: int,
        reset: bool = False,
        values: np.ndarray | None = None,
        inputs: dict[int, float] | None = None,
        again: bool = False,
    ) -> None:
        """Write the schedules' values at ``step`` to the groups, but not over a caller's value.

        With ``reset`` over every value, as they were loaded, not written by the caller; with
        ``again`` the loaded values may be written once more before the next step.
        ``values`` is the matrix at ``step``, if the backend has computed it; ``inputs`` the values
        of the schedules' inputs, by tensor id, where the device must not be read.
        """
        self.known_step = step
        for g, slot, cell in self._mirrored:
            if cell.schedule is None or cell.tensor is not None:
                continue
            if inputs is not None and not is_known(cell.schedule, inputs):
                continue  # it came after the device was asked
            if reset or cell.mirror is None or same(read_group(groups[g], slot), cell.mirror):
                if values is not None:
                    value = values.item(g, slot)
                else:
                    value = value_at(cell.schedule, step, inputs)
                if again and not same(host := read_group(groups[g], slot), cell.mirror):
                    cell.loaded, self._may_come_again = host, True
                _show(groups[g], slot, cell, value)

    def forget_loaded(self) -> None:
        """After a step: values in the groups count as the caller's or mirrors, not as loaded."""
        if self._may_come_again:
            self._may_come_again = False
            for _, _, cell in self._mirrored:
                cell.loaded = None

    def take_schedules(self, groups: list[dict[str, Any]]) -> None:
        """Use and mirror the schedules that the caller wrote to the groups."""
        written = [
            (g, slot, by_layer(schedule, group) if slot == Slot.LR else schedule)
            for g, group in enumerate(groups)
            for slot in self.slots
            if type(group.get(slot.key)) is not float  # the usual case, fast
            and (schedule := schedule_in(group, slot)) is not None
        ]
        for g, slot, schedule in written:
            self.follow(g, slot, schedule)
            _show(groups[g], slot, self.rows[g].cells[slot], schedule(self.known_step))
            self.undescribed = True

    def mark_described(self) -> None:
        """Record that the groups' texts have every schedule."""
        self.undescribed = False

    def lr_was_written_as_zero(self, groups: list[dict[str, Any]]) -> bool:
        """The caller wrote 0 over every lr since the last step."""
        return bool(groups) and all(
            group["lr"] is not row.cells[Slot.LR].tensor  # first: a tensor may be on a device
            and is_zero(group["lr"])
            and not row.cells[Slot.LR].is_mirrored(group["lr"])
            and not (is_override and value == 0.0)
            for row, group, is_override, value in zip(
                self.rows,
                groups,
                self.is_override[:, Slot.LR],
                self.values[:, Slot.LR],
                strict=True,
            )
        )

    def collect(self, groups: list[dict[str, Any]]) -> None:
        """Read what the caller wrote; another tensor changes ``sources``.

        Raises:
            TypeError: a value in a group is not a number, a tensor or a schedule.
        """
        hosts = self._hosts(groups)
        if any(isinstance(host, Schedule) for row in hosts for host in row):
            self.take_schedules(groups)
            hosts = self._hosts(groups)
        for g, row in enumerate(self.rows):
            for slot, host in zip(self.slots, hosts[g], strict=True):
                cell = row.cells[slot]
                tensor = host if isinstance(host, Tensor) else None
                if tensor is not cell.tensor:
                    cell.read_from(tensor, slot)
                mirrored = cell.is_mirrored(host)
                if mirrored and cell.mirror is not None and not same(host, cell.mirror):
                    _show(groups[g], slot, cell, cell.mirror)
                leads = tensor is not None or mirrored
                self.is_override[g, slot] = not leads
                if not leads:
                    self.values[g, slot] = host
                if cell.schedule is not None and not mirrored:
                    _warn(cell, g, slot, host, groups[g])

    def _hosts(self, groups: list[dict[str, Any]]) -> list[list[Any]]:
        """The value of every hyperparameter in the groups, checked."""
        return [[checked(g, slot, group) for slot in self.slots] for g, group in enumerate(groups)]

    def check_bases(self, groups: list[dict[str, Any]]) -> None:
        """Refuse an LR scheduler whose base lr is the first value, 0, of lr's schedule.

        Raises:
            RuntimeError: every lr that it would set is 0.
        """
        for g, (group, row) in enumerate(zip(groups, self.rows, strict=True)):
            schedule = row.cells[Slot.LR].schedule
            if schedule is None or not is_zero(group.get("initial_lr")):
                continue
            # SWALR sets initial_lr, too, but never uses it.
            if schedule(0) == 0.0 and "swa_lr" not in group:
                raise RuntimeError(
                    f"param_groups[{g}]: an LR scheduler was built over this optimizer, and took "
                    "initial_lr = 0 from lr's schedule, which starts at 0: every multiple of it, "
                    "for the whole run, is 0. Write lrfused.ReportLR(optimizer) in place of the "
                    "scheduler (Trainer(..., optimizers=(optimizer, lrfused.ReportLR(optimizer)))),"
                    " or keep the scheduler and give the optimizer the peak, a number, for lr"
                )

    def evaluate(self, step: int) -> np.ndarray:
        """The matrix at a step, from the NumPy evaluator."""
        matrix = self.values.copy()
        for g, slot, schedule in self.programs:
            if not self.is_override[g, slot]:
                steps = np.array([step], dtype=np.float64)
                value = schedule.program.evaluate(steps, schedule._input_values())
                matrix[g, slot] = value[0]
        return matrix


def _show(group: dict[str, Any], slot: Slot, cell: Cell, value: float) -> None:
    key, stored = written(group, slot, value)
    # Together: an interrupt between the two would look like a caller's value.
    cell.mirror, group[key] = value, stored


def _warn(cell: Cell, g: int, slot: Slot, host: Any, group: dict[str, Any]) -> None:
    if cell.warned:
        return
    cell.warned = True
    name = slot.name.lower()
    hint = ""
    if slot == Slot.LR and "initial_lr" in group:
        hint = (
            "; its initial_lr says that an LR scheduler was built over this optimizer: use "
            "lrfused.ReportLR(optimizer) in its place, or give the optimizer a number for lr"
        )
    warn(
        f"param_groups[{g}]: {name} was set to {host} and overrides its schedule until the "
        f"mirrored value {cell.mirror} is written back{hint}"
    )
