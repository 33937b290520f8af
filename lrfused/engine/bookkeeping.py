"""An optimizer's state that is independent of addresses: group settings, counters, counts."""

from typing import Any

from torch import Tensor

from lrfused.backends.work import Outcome
from lrfused.device.graph_capture import is_capturing
from lrfused.device.readback import Seen
from lrfused.engine import counting
from lrfused.engine.adopt import found_in
from lrfused.engine.counters import Counters
from lrfused.groups import arguments
from lrfused.groups.known_groups import KnownGroups
from lrfused.groups.matrix import Hyperparameters
from lrfused.groups.shared_counters import STEP
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.settings.cells import Settings, as_number
from lrfused.settings.options import GroupOptions, Options
from lrfused.settings.slots import Slot
from lrfused.state.device_state import DeviceState, Field, Reading
from lrfused.state.masks import Found, Masks, clear
from lrfused.state.operands import allocate, operands_in
from lrfused.state.step_counts import Counts, Groups, Numbers, States
from lrfused.warn import warn


class Bookkeeping:
    """An optimizer's settings, counters and counts, kept in step with its groups and states.

    It outlives bound tables and does not know them. When it replaces something that a table is
    bound to, it raises the version of `DeviceState` or `Hyperparameters`.
    """

    def __init__(self, options: Options, known: KnownGroups):
        self.options, self.known, self.rule = options, known, known.rule
        self.counters = Counters(self.rule, options.loss_scale)
        self.hyper = Hyperparameters(self.rule)
        self.masks = Masks()
        self.group_options: list[GroupOptions] = []
        self.has_stepped = self.measured = self.scale_was_asked = self.step_was_set = False
        self.holds_averages = False  # the parameters do, for a while
        self._last_rows: list[Settings] = []  # groups of the last step
        self._captured_rows: list[Settings] | None = None  # groups of captured graphs

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_captured_rows": None, "holds_averages": False}

    # Groups

    def arrange(self, groups: Groups) -> None:
        """Match the rows of settings to the present list of groups."""
        if not self.known.are_as_before(groups, self.hyper.rows):
            self.hyper.arrange(self.known.rows(groups, self.hyper.rows))
            self._read_options(groups)

    def align(self, groups: Groups) -> None:
        """Match the rows of settings and the options to the present list of groups."""
        self.arrange(groups)
        self._read_options(groups)

    def _read_options(self, groups: Groups) -> None:
        rows = zip(self.hyper.rows, groups, strict=True)
        options = [arguments.with_group(self.rule, row, group) for row, group in rows]
        if options != self.group_options:
            self.group_options = options

    def expect_growth(self, groups: Groups) -> None:
        """Before a group is added: match the rows to the list, if the caller has edited it."""
        if not self.known.has_grown_only(groups):
            self.arrange(groups)

    def add_group(self, group: dict[str, Any], checked: arguments.Group) -> None:
        """Register the settings of a group that was just added to the list.

        It gets its row when the groups are next used, together with others that are added.
        """
        self.hyper.show_in(group, self.known.add(group, checked))

    def collect(self, groups: Groups, states: States) -> None:
        """Read everything the caller changed: group values, and the list of groups.

        Raises:
            RuntimeError: a step was captured with other groups.
            TypeError, ValueError: a value in a group is invalid.
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
        """Add schedules that the caller wrote to the groups to the groups' JSON texts."""
        if self.hyper.undescribed:
            self.known.describe(self.hyper.rows, groups)
            self.hyper.mark_described()

    # Counters, and counts of parameters

    def state(self, groups: Groups) -> DeviceState:
        """The counters, on the first parameter's device; created on first use."""
        return self.counters.state(groups)

    def settled_state(self, groups: Groups) -> DeviceState:
        """Like `state`, but first moved if the parameters are on another device by now."""
        if not self.is_captured:
            self.counters.move_home(groups)
        return self.state(groups)

    def count(self, groups: Groups, states: States) -> Counts:
        """Counts for the present parameters; afterwards the states hold views of them."""
        self.align(groups)
        state = self.state(groups)
        return counting.count(state, self.hyper, self.group_options, groups, states)

    def count_anew(self, groups: Groups, states: States) -> None:
        """Adopt counts if the states' ``step`` tensors were replaced.

        Call it before `collect`: the values in the groups may have been loaded along with them,
        and would otherwise count as the caller's own writes.
        """
        if not self.state(groups).tensors.show_in(groups, states):
            self.settled_state(groups)
            self.count(groups, states)

    def has_no_state(self) -> bool:
        """Nothing is ever allocated: SGD without momentum, say."""
        return not any(map(self.rule.has_state, self.group_options))

    def make_states(self, groups: Groups, states: States, params: list[Tensor]) -> None:
        """Allocate the state of these parameters and of averaged ones, as a first step would."""
        wanted = {id(param) for param in params}
        counts = self.count(groups, states)
        made = [
            (g, param)
            for g, group in enumerate(groups)
            for param in group["params"]
            if id(param) in wanted or self.group_options[g].average_every
        ]
        self.allocate(states, made)
        counts.bind(states)

    def allocate(self, states: States, made: list[tuple[int, Tensor]]) -> None:
        """Allocate what is missing of the states of these parameters, each with its group."""
        for g, param in made:
            allocate(self.rule, self.group_options[g], states, param)
        self.masks.mark(states, [param for _, param in made])

    # Loaded values: through load_state_dict, or written into groups and states directly

    def adopt(self, groups: Groups, states: States) -> None:
        """Adopt a checkpoint that was written into groups and state without `load_state_dict`.

        Raises:
            RuntimeError: a CUDA graph is being captured.
            ValueError: a loaded value is invalid.
        """
        if self.known.counters.were_replaced(groups):
            self._adopt(groups, states)
        else:
            self.known.counters.put_into(groups)

    @normal_tensors()
    def _adopt(self, groups: Groups, states: States) -> None:
        if is_capturing(self.state(groups).words.device):
            raise RuntimeError("step: another state was loaded; take a step before the capture")
        found = found_in(self.known, self.hyper.rows, groups, states)
        params = [param for group in groups for param in group["params"]]
        loaded = self.masks.found_in(states, params, self.is_captured)
        for tensor, value in found.inputs:
            tensor.fill_(value)
        self.load_masks(states, loaded)
        taken = groups[0].get(STEP)
        self.load_counters(groups, found.counters, found.largest_count, again=True)
        self.known.counters.remember_taken(taken)
        if found.different:
            warn(f"param_groups: {found.different}")

    def load_masks(self, states: States, loaded: Found) -> None:
        """Set masks as loaded, others stay; loaded state becomes 0 where it is masked."""
        for param, mask in loaded.items():
            self.masks.set(param, mask)
        held = [param for param, state in states.items() if isinstance(state, dict) and state]
        self.masks.mark(states, held)
        for param, mask in self.masks.shown(held).items():
            clear((operand for _, operand in operands_in(self.rule, states[param])), mask)

    def load_counts(
        self, groups: Groups, states: States, counts: list[int], carried: list[Numbers]
    ) -> None:
        """Set the counts exactly as loaded, and the carried numbers."""
        params = [param for group in groups for param in group["params"]]
        counting.restore(self.state(groups), states, params, counts, carried)
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
        """Set counters and loss scale; reset mirrors, as loaded values are not caller writes."""
        if not self.says_the_step(counters):
            largest_count = self.counters.step  # nobody says another
        self.counters.load(groups, counters, largest_count)
        self.step_was_set = False
        self.known.counters.put_into(groups)
        self.known.describe(self.hyper.rows, groups)
        self.hyper.mirror(groups, self.state(groups).step, reset=True, again=again)

    def set_step(self, groups: Groups, states: States, step: int) -> None:
        """Set the number of completed steps, on the caller's request."""
        self.align(groups)
        self.adopt(groups, states)  # or what was loaded behind our back would come after it
        self.count_anew(groups, states)
        self.hyper.take_schedules(groups)
        self.counters.forget_pending()
        self.state(groups).set_step(step)
        self.hyper.mirror(groups, step)
        self.describe_written(groups)
        self.step_was_set = True

    def copied(self, states: States) -> None:
        """Repair views after a deepcopy or unpickling."""
        self.counters.copied(states)

    # Steps

    @property
    def is_captured(self) -> bool:
        """True once a step was captured: graphs hold the addresses of state and groups."""
        return self._captured_rows is not None

    def keep_for_graphs(self) -> None:
        """Fix the groups and the state's memory from now on: a step was captured."""
        self._captured_rows = self.hyper.rows

    def step_done(
        self,
        groups: Groups,
        rows: list[Settings],
        measured: bool,
        outcome: Outcome,
        seen: Seen | None,
    ) -> None:
        """Record a step over these rows, and update the mirrors with what the host knows."""
        self.has_stepped, self.measured, self._last_rows = True, measured, rows
        self.step_was_set = False
        self.known.counters.forget_taken()
        self.hyper.forget_loaded()
        if outcome.step is not None:
            self.hyper.mirror(groups, outcome.step, values=outcome.values)
        elif seen is not None:
            self.hyper.mirror(groups, int(seen.reading[Field.STEP]), inputs=seen.inputs)

    def read(self, groups: Groups, states: States) -> Reading:
        """Read counters and metrics, and refresh the mirrors; waits for the device.

        Raises:
            RuntimeError: a step was refused and the error was not yet raised.
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
        """The lr of each group in the last step; for a group not in it, that of the next step."""
        used = zip(self._last_rows, reading.hyperparameters[:, Slot.LR].tolist(), strict=False)
        by_number = {row.number: lr for row, lr in used}
        return [
            by_number[row.number] if row.number in by_number else float(as_number(group["lr"]))
            for row, group in zip(self.hyper.rows, groups, strict=True)
        ]

    def present_loss_scale(self, groups: Groups, states: States) -> Tensor:
        """The tensor that multiplies the loss now."""
        self.note_scale_asked()
        if self.known.counters.were_replaced(groups):
            self.align(groups)
            self.adopt(groups, states)
        return self.state(groups).loss_scale

    def note_scale_asked(self) -> None:
        """Record that the caller has read the loss scale, and so may have scaled the loss."""
        self.scale_was_asked = True
