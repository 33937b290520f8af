"""The engine: walks the gradients, keeps the table, runs a backend, reports what it found."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lrfused.backends.cpu.step import CpuStep
from lrfused.backends.registry import Choice, checked
from lrfused.device.async_copy import DeviceQueue
from lrfused.device.graph_capture import is_capturing
from lrfused.device.readback import Readback, Seen
from lrfused.engine.adopt import adopt
from lrfused.engine.bound_table import Table, is_current, watch
from lrfused.engine.counting import count_anew
from lrfused.engine.slow_path import look_closely
from lrfused.engine.staging import run_with_copies
from lrfused.groups import arguments
from lrfused.groups.known_groups import KnownGroups
from lrfused.groups.matrix import Hyperparameters
from lrfused.memory.checks import check_pair
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.rules import ADAMW
from lrfused.settings.cells import Settings, as_number
from lrfused.settings.options import GroupOptions, Options
from lrfused.settings.slots import Slot
from lrfused.state.device_state import DeviceState, Field, Reading
from lrfused.state.errors import error_of
from lrfused.state.step_counts import Groups, States


class Engine:
    """Everything of an optimizer that torch's base class does not keep.

    It outlives tables: parameters may be replaced, groups added, state loaded; the next step
    notices and builds a new table, and the counts of parameters move along.
    """

    def __init__(self, options: Options, backend: Choice, known: KnownGroups):
        self.options, self.known, self.rule = options, known, ADAMW
        self.backend = checked(backend)
        self.instruction_set = "auto"
        self.groups: list[GroupOptions] = []
        self.hyper = Hyperparameters()
        self.stepped = self.measured = self.scale_was_asked = False
        self.readback: Readback | None = None  # from the first step of which nothing is known on
        self._planned: list[Settings] = []  # the groups of the last step
        self._state: DeviceState | None = None
        self._table: Table | None = None
        self._captured: list[Table] = []  # replaced ones, in which graphs go on

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "readback": None, "_table": None, "_captured": []}

    # State

    def state(self, groups: Groups) -> DeviceState:
        """The counters, on the device of the first parameter; made when first needed."""
        if self._state is None:
            self._state = DeviceState(
                self.rule, self.options.loss_scale, len(groups), _home(groups)
            )
        return self._state

    def settled_state(self, groups: Groups) -> DeviceState:
        """The same; moved, if the parameters went to another device since it was made."""
        state = self.state(groups)
        devices = {p.device for group in groups for p in group["params"]}
        if state.words.device not in devices and not self.is_captured:
            self.forget_table()  # it has the addresses
            state.move(_home(groups))
        return state

    def present_loss_scale(self, groups: Groups, states: States) -> Tensor:
        """What multiplies the loss now."""
        self.scale_was_asked = True
        if self.known.carried.were_replaced(groups):
            self.align(groups)
            adopt(self, groups, states)
        return self.state(groups).loss_scale

    def counter(self) -> int:
        """Completed, non-skipped steps."""
        return 0 if self._state is None else int(self._state.words[Field.STEP])

    @property
    def native_step(self) -> CpuStep | None:
        """The C++ backend's side of the present table; None if the reference runs it."""
        run = None if self._table is None else self._table.run
        return run if isinstance(run, CpuStep) else None

    def forget_table(self) -> None:
        """The next step builds a new table; this one stays alive if a graph was captured."""
        if self._table is not None and self._table.is_captured:
            self._captured.append(self._table)
        self._table = None
        if self.readback is not None:
            self.readback.forget()

    @property
    def is_captured(self) -> bool:
        """A step was captured: graphs know the addresses of state and groups."""
        return bool(self._captured) or (self._table is not None and self._table.is_captured)

    # The step

    def step(
        self, groups: Groups, states: States, grad_scale: Any = None, found_inf: Any = None
    ) -> None:
        """One step over all parameters that have a gradient; none: nothing happens.

        ``grad_scale`` and ``found_inf`` are what a GradScaler sets: None, numbers or tensors.

        Raises:
            RuntimeError, TypeError, ValueError: a gradient, a parameter or a hyperparameter
                cannot be used; nothing was changed. On a GPU a hyperparameter or a gradient of
                an earlier step, which was refused.
        """
        seen = None if self.readback is None else self._look_back(self.readback)
        made: list[Tensor] = []
        closer = self._look(groups, states)
        if closer is None:
            with normal_tensors():
                closer, made = look_closely(self, groups, states)
        table = self._table
        if table is None or closer is None:
            return
        # Until all is well again: after an error everything gets a closer look.
        walk, table.walk = table.walk, None
        work = table.work
        work.grad_scale, work.found_inf = 1.0, False
        if grad_scale is not None or found_inf is not None:
            table.take_outside(grad_scale, found_inf)
        outcome = run_with_copies(table, closer) if closer else table.run(work)
        if outcome.error:
            for param in made:  # its state, too, is as it was
                del states[param]
                self.forget_table()
            self._raise_latched(work.state.read())
        self.stepped, self.measured, self._planned = True, table.measures, work.rows
        self.known.carried.taken = None
        self.hyper.forget_loaded()
        if outcome.step is not None:
            self.hyper.mirror(groups, outcome.step, values=outcome.values)
        else:
            self._ask(table)
            if seen is not None:
                self.hyper.mirror(groups, int(seen.reading[Field.STEP]), inputs=seen.inputs)
        if walk is None:
            walk = watch(table, groups, states)
        else:
            walk.remember(groups)
        table.walk = walk

    # What the host knows of a GPU's steps

    def _ask(self, table: Table) -> None:
        """Now and then have the decisions copied to the host; a captured step decides nothing."""
        state = table.work.state
        if is_capturing(state.words.device):
            table.is_captured = True
            return
        if self.readback is None:
            self.readback = Readback(DeviceQueue(state.words.device))
        self.readback.ask(state, self.hyper.mirrored_inputs)

    def _look_back(self, readback: Readback) -> Seen | None:
        """What arrived of earlier steps, without waiting for anything.

        Raises:
            RuntimeError: one of them was refused.
        """
        seen = readback.look()
        if seen is not None:
            self._raise_latched(seen.reading)
        return seen

    def read(self, groups: Groups, states: States) -> Reading:
        """Everything about the steps so far; waits for the device, and refreshes the mirrors.

        Raises:
            RuntimeError: one of them was refused, and the host did not know yet.
        """
        self.align(groups)
        adopt(self, groups, states)
        count_anew(self, groups, states)
        reading = self.state(groups).read()
        if self.readback is not None:
            self.readback.forget()
        self._raise_latched(reading)
        self.hyper.take_schedules(groups)
        self.hyper.mirror(groups, int(reading[Field.STEP]))
        self.describe_written(groups)
        return reading

    def lrs(self, groups: Groups, reading: Reading) -> list[float]:
        """What the last step used; of a group that had no part, what the next one will use."""
        used = zip(self._planned, reading.hyperparameters[:, Slot.LR].tolist(), strict=False)
        by_number = {row.number: lr for row, lr in used}
        return [
            by_number[row.number] if row.number in by_number else float(as_number(group["lr"]))
            for row, group in zip(self.hyper.rows, groups, strict=True)
        ]

    def describe_written(self, groups: Groups) -> None:
        """Schedules that the caller wrote to the groups belong to their texts, too."""
        if self.hyper.undescribed:
            self.known.describe(self.hyper.rows, groups)
            self.hyper.undescribed = False

    def _raise_latched(self, reading: Reading) -> None:
        error = error_of(reading)
        if error is not None:
            if self.readback is not None:
                self.readback.forget()
            assert self._state is not None
            self._state.clear_error()
            raise error

    def push(self, groups: Groups, states: States) -> None:
        """Upload what stands in the groups, where captured graphs read it.

        Raises:
            RuntimeError: something stands there that takes another table, not other numbers.
        """
        if self._table is None:
            return
        self.collect(groups, states)
        if not is_current(self._table.work, self.groups, self.hyper):
            raise RuntimeError(
                "push: param_groups holds more than other numbers (another option, or a Tensor or "
                "Schedule in place of a number); take a step and capture again"
            )
        for table in (self._table, *self._captured):
            if table.takes_tensors and is_current(table.work, self.groups, self.hyper):
                table.run.push(table.work)  # type: ignore[attr-defined]

    # Is the table still right?

    def _look(self, groups: Groups, states: States) -> list[int] | None:
        """A quick look: the gradients that need a closer one; None if everything does."""
        table = self._table
        walk = None if table is None else table.walk
        if table is None or walk is None or not isinstance(groups, list):
            return None
        seen = walk.look(groups, states, table.work.addresses)
        if seen is None:
            return None
        written, table.work.moving, closer = seen
        if written:
            table.walk = None
            self.collect(groups, states)
            table.walk = walk
            if not is_current(table.work, self.groups, self.hyper):
                return None
        if not table.work.moving:
            return None
        for index in closer:
            param = table.work.entries[index].param
            check_pair(param, param.grad, self.options.write_grads)
        return closer

    def arrange(self, groups: Groups) -> None:
        """Rows of settings for the groups as they stand now."""
        if self.known.are_as_before(groups, self.hyper.rows):
            return
        self.hyper.arrange(self.known.rows(groups, self.hyper.rows))
        if self._table is not None:
            self._table.walk = None  # groups that are put back would look as they did

    def add_group(self, group: dict[str, Any], checked: arguments.Group) -> None:
        """The settings of a group that was added to the list."""
        row = self.known.add(group, checked)
        self.hyper.append(row, group)
        self.groups = [*self.groups, _with_torch_options(row.options, group)]
        self.forget_table()

    def align(self, groups: Groups) -> None:
        """Rows and options for the groups as they stand now."""
        self.arrange(groups)
        rows = zip(self.hyper.rows, groups, strict=True)
        options = [_with_torch_options(row.options, group) for row, group in rows]
        if options != self.groups:
            self.groups = options

    def collect(self, groups: Groups, states: States) -> None:
        """Take in what the caller wrote to the groups, and to the list of them.

        Raises:
            RuntimeError: a step was captured with other groups.
            TypeError, ValueError: something cannot stand there.
        """
        self.align(groups)
        captured = [t for t in (self._table, *self._captured) if t is not None and t.is_captured]
        if any(table.work.rows != self.hyper.rows for table in captured):
            raise RuntimeError(
                "param_groups: groups were removed, added or put in another order after a step was "
                "captured in a CUDA graph, which knows those that there were; put them back, or "
                "make another optimizer and capture again"
            )
        adopt(self, groups, states)
        self.hyper.collect(groups)

    def copied(self, states: States) -> None:
        """After a deepcopy or unpickling."""
        if self._state is not None:
            self._state.tensors.renew_views()
            self._state.tensors.bind(states)


def _home(groups: Groups) -> torch.device:
    """Where the first parameter is that has memory."""
    params = (param for group in groups for param in group["params"])
    return next((p.device for p in params if not p.is_meta), torch.device("cpu"))


def _with_torch_options(options: GroupOptions, group: dict[str, Any]) -> GroupOptions:
    """The options with what stands in the group, which the caller may change at any time."""
    of_rule = {**options.of_rule, "amsgrad": bool(group["amsgrad"])}
    maximize = bool(group["maximize"])
    if (options.of_rule, options.maximize) == (of_rule, maximize):
        return options
    return replace(options, of_rule=of_rule, maximize=maximize)
