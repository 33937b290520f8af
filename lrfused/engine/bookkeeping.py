"""What an optimizer remembers apart from addresses: settings by group, counters, counts."""

from typing import Any

from torch import Tensor

from lrfused.backends.work import Outcome
from lrfused.device.graph_capture import is_capturing
from lrfused.device.readback import Seen
from lrfused.engine import counting
from lrfused.engine.adopt import found_in
from lrfused.engine.counters import Counters
from lrfused.groups import arguments
from lrfused.groups.carried import STEP
from lrfused.groups.known_groups import KnownGroups
from lrfused.groups.matrix import Hyperparameters
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.settings.cells import Settings, as_number
from lrfused.settings.options import GroupOptions, Options
from lrfused.settings.slots import Slot
from lrfused.state.device_state import DeviceState, Field, Reading
from lrfused.state.operands import allocate
from lrfused.state.step_counts import Counts, Groups, Numbers, States
from lrfused.warn import warn


class Bookkeeping:
    """Settings, counters and counts of an optimizer, whatever its groups and states hold by now.

    It outlives tables of addresses and knows none of them. Where it replaces what a table is bound
    to, the versions of `DeviceState` and `Hyperparameters` rise.
    """

    def __init__(self, options: Options, known: KnownGroups):
        self.options, self.known, self.rule = options, known, known.rule
        self.counters = Counters(self.rule, options.loss_scale)
        self.hyper = Hyperparameters(self.rule)
        self.group_options: list[GroupOptions] = []
        self.has_stepped = self.measured = self.scale_was_asked = self.step_was_set = False
        self._last_rows: list[Settings] = []  # the groups of the last step
        self._captured_rows: list[Settings] | None = None  # the groups that graphs know

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_captured_rows": None}

    # Groups

    def arrange(self, groups: Groups) -> None:
        """Rows of settings for the groups as they stand now."""
        if not self.known.are_as_before(groups, self.hyper.rows):
            self.hyper.arrange(self.known.rows(groups, self.hyper.rows))

    def align(self, groups: Groups) -> None:
        """Rows and options for the groups as they stand now."""
        self.arrange(groups)
        rows = zip(self.hyper.rows, groups, strict=True)
        options = [arguments.with_group(self.rule, row, group) for row, group in rows]
        if options != self.group_options:
            self.group_options = options

    def add_group(self, group: dict[str, Any], checked: arguments.Group) -> None:
        """The settings of a group that was added to the list."""
        row = self.known.add(group, checked)
        self.hyper.append(row, group)
        self.group_options = [
            *self.group_options,
            arguments.with_group(self.rule, row, group),
        ]

    def collect(self, groups: Groups, states: States) -> None:
        """Take in what the caller wrote to the groups, and to the list of them.

        Raises:
            RuntimeError: a step was captured with other groups.
            TypeError, ValueError: something cannot stand there.
        """
        self.align(groups)
        if self._captured_rows is not None and self._captured_rows != self.hyper.rows:
            raise RuntimeError(
                "param_groups: groups were removed, added or put in another order after a step was "
                "captured in a CUDA graph, which knows those that there were; put them back, or "
                "make another optimizer and capture again"
            )
        self.adopt(groups, states)
        self.hyper.collect(groups)

    def describe_written(self, groups: Groups) -> None:
        """Schedules that the caller wrote to the groups belong to their texts, too."""
        if self.hyper.undescribed:
            self.known.describe(self.hyper.rows, groups)
            self.hyper.mark_described()

    # Counters, and counts of parameters

    def state(self, groups: Groups) -> DeviceState:
        """The counters, on the device of the first parameter; made when first needed."""
        return self.counters.state(groups)

    def settled_state(self, groups: Groups) -> DeviceState:
        """The same; moved, if the parameters went to another device since it was made."""
        if not self.is_captured:
            self.counters.move_home(groups)
        return self.state(groups)

    def count(self, groups: Groups, states: States) -> Counts:
        """Counts for the present list of parameters, which the states show from here on."""
        self.align(groups)
        state = self.state(groups)
        return counting.count(state, self.hyper, self.group_options, groups, states)

    def count_anew(self, groups: Groups, states: States) -> None:
        """Take over counts that somebody put into the states in place of ours, if so.

        Before what stands in the groups is taken for the caller's: it may be loaded, too.
        """
        if not self.state(groups).tensors.show_in(groups, states):
            self.settled_state(groups)
            self.count(groups, states)

    def make_states(self, groups: Groups, states: States, params: list[Tensor]) -> None:
        """The state of these parameters, as their first step would make it."""
        wanted = {id(param) for param in params}
        counts = self.count(groups, states)
        for options, group in zip(self.group_options, groups, strict=True):
            for param in group["params"]:
                if id(param) in wanted:
                    allocate(self.rule, options, states, param)
        counts.bind(states)

    # What was loaded, by our load, or behind our back

    @normal_tensors()
    def adopt(self, groups: Groups, states: States) -> None:
        """Take over what was loaded into groups and state behind our back.

        Raises:
            RuntimeError: a CUDA graph is being captured.
            ValueError: a value that cannot be.
        """
        carried = self.known.carried
        if not carried.were_replaced(groups):
            carried.put_into(groups)
            return
        if is_capturing(self.state(groups).words.device):
            raise RuntimeError("step: another state was loaded; take a step before the capture")
        found = found_in(self.rule, self.hyper.rows, self.options, groups, states)
        for tensor, value in found.inputs:
            tensor.fill_(value)
        taken = groups[0].get(STEP)
        self.load_counters(groups, found.counters, found.largest_count, again=True)
        carried.remember_taken(taken)
        if found.different:
            warn(f"param_groups: {found.different}")

    def load_counts(
        self, groups: Groups, states: States, counts: list[int], carried: list[Numbers]
    ) -> None:
        """Take over loaded counts, exactly, with the carried numbers."""
        params = [param for group in groups for param in group["params"]]
        counting.restore(self.state(groups), params, counts, carried)
        self.count(groups, states)

    def says_the_step(self, counters: dict[Field, float]) -> bool:
        """Whether a checkpoint with these counters says how many steps were completed."""
        return self.rule.counts or Field.STEP in counters

    def load_counters(
        self,
        groups: Groups,
        counters: dict[Field, float],
        largest_count: int,
        again: bool = False,
    ) -> None:
        """The counters and the loss scale; loaded values are no caller's, so mirrors are reset."""
        if not self.says_the_step(counters):
            largest_count = self.counters.step  # nobody says another
        self.counters.load(groups, counters, largest_count)
        self.step_was_set = False
        self.known.carried.put_into(groups)
        self.known.describe(self.hyper.rows, groups)
        self.hyper.mirror(groups, self.state(groups).step, reset=True, again=again)

    def set_step(self, groups: Groups, step: int) -> None:
        """The caller says how many steps were completed."""
        self.align(groups)
        self.counters.forget_pending()
        self.state(groups).set_step(step)
        self.hyper.mirror(groups, step)
        self.step_was_set = True

    def copied(self, states: States) -> None:
        """After a deepcopy or unpickling."""
        self.counters.copied(states)

    # Steps

    @property
    def is_captured(self) -> bool:
        """A step was captured: graphs know the addresses of state and groups."""
        return self._captured_rows is not None

    def keep_for_graphs(self) -> None:
        """A step was captured: groups and the state's memory stay as they are from now on."""
        self._captured_rows = self.hyper.rows

    def step_done(
        self,
        groups: Groups,
        rows: list[Settings],
        measured: bool,
        outcome: Outcome,
        seen: Seen | None,
    ) -> None:
        """A step over these rows was taken; the mirrors follow as far as the host knows."""
        self.has_stepped, self.measured, self._last_rows = True, measured, rows
        self.known.carried.forget_taken()
        self.hyper.forget_loaded()
        if outcome.step is not None:
            self.hyper.mirror(groups, outcome.step, values=outcome.values)
        elif seen is not None:
            self.hyper.mirror(groups, int(seen.reading[Field.STEP]), inputs=seen.inputs)

    def read(self, groups: Groups, states: States) -> Reading:
        """Everything about the steps so far; waits for the device, and refreshes the mirrors.

        Raises:
            RuntimeError: one of them was refused, and the host did not know yet.
        """
        self.align(groups)
        self.adopt(groups, states)
        self.count_anew(groups, states)
        reading = self.counters.read(groups, self.group_options)
        self.hyper.take_schedules(groups)
        self.hyper.mirror(groups, int(reading[Field.STEP]))
        self.describe_written(groups)
        return reading

    def lrs(self, groups: Groups, reading: Reading) -> list[float]:
        """What the last step used; of a group that had no part, what the next one will use."""
        used = zip(self._last_rows, reading.hyperparameters[:, Slot.LR].tolist(), strict=False)
        by_number = {row.number: lr for row, lr in used}
        return [
            by_number[row.number] if row.number in by_number else float(as_number(group["lr"]))
            for row, group in zip(self.hyper.rows, groups, strict=True)
        ]

    def present_loss_scale(self, groups: Groups, states: States) -> Tensor:
        """What multiplies the loss now."""
        self.note_scale_asked()
        if self.known.carried.were_replaced(groups):
            self.align(groups)
            self.adopt(groups, states)
        return self.state(groups).loss_scale

    def note_scale_asked(self) -> None:
        """Somebody knows the loss scale, and may have multiplied by it."""
        self.scale_was_asked = True
