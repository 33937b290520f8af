"""The engine: checks the caller's tensors, keeps the bound table, runs it, raises errors."""

from typing import Any, NamedTuple

from torch import Tensor

from lrfused.backends.registry import Choice, checked
from lrfused.backends.work import Place
from lrfused.device.graph_capture import is_capturing
from lrfused.engine import slow_path
from lrfused.engine.bind import bind
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.bound_table import BoundTable
from lrfused.engine.changes import Changes, changed_sources, is_current
from lrfused.engine.rebind import can_rebind, rebind
from lrfused.groups import arguments
from lrfused.memory.checks import check_pair
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.state.step_counts import Groups, States


class Ready(NamedTuple):
    """What a step needs besides the table: gradients to stage, parameters with new state."""

    staged: list[int]
    newly_initialized: list[Tensor]


class Engine:
    """Runs an optimizer's steps, with its bookkeeping and the present bound table.

    When parameters are replaced, groups added or state loaded, the next step notices and rebinds;
    the parameters' counts are kept.
    """

    def __init__(self, bookkeeping: Bookkeeping, backend: Choice):
        self.bookkeeping = bookkeeping
        self.backend = checked(backend)
        self.instruction_set = "auto"
        self.table: BoundTable | None = None
        self._captured: list[BoundTable] = []  # replaced tables that graphs still use
        self._used: set[int] = set()  # ids of parameters that took part, while there is no table

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "table": None, "_captured": [], "_used": set()}

    def forget_table(self) -> None:
        """Drop the table, so that the next step rebinds; it stays alive if a graph captured it."""
        if self.table is not None and self.table.is_captured:
            self._captured.append(self.table)
        if self.table is not None:
            self._used = self.table.used_params()
        self.table = None
        self.bookkeeping.counters.forget_pending()

    def add_group(self, group: dict[str, Any], checked: arguments.Group) -> None:
        """Register a group that was just added to the list, with its settings."""
        self.bookkeeping.add_group(group, checked)
        self.forget_table()

    def step(
        self, groups: Groups, states: States, grad_scale: Any = None, found_inf: Any = None
    ) -> None:
        """One step over all parameters that have a gradient; a no-op if none has one.

        ``grad_scale`` and ``found_inf`` are set by a GradScaler: None, numbers or tensors.

        Raises:
            RuntimeError, TypeError, ValueError: a gradient, a parameter or a hyperparameter
                cannot be used; nothing was changed. On a GPU the error may be that of an earlier
                step, which was refused.
        """
        books = self.bookkeeping
        if books.holds_averages:
            raise RuntimeError("step: the parameters hold their averages; leave `averaged` first")
        seen = books.counters.look_back(books.group_options)
        ready = self._fast_path(groups, states)
        if ready is None:
            with normal_tensors():
                ready = self._slow_path(groups, states)
        table = self.table
        if table is None or ready is None:
            return
        table.suspend_guard()
        outcome = table.step(ready.staged, grad_scale, found_inf)
        if outcome.error:
            self._undo(states, ready.newly_initialized)
            books.counters.raise_latched(table.work.state.read(), table.work.groups)
        books.step_done(groups, table.work.rows, table.measures, outcome, seen)
        if outcome.step is None:
            self._follow_device(table)
        table.renew_guard(groups, states)

    def _follow_device(self, table: BoundTable) -> None:
        """After an asynchronous step: request its outcome, or if captured, keep its memory."""
        state = table.work.state
        if is_capturing(state.words.device):
            table.keep_for_graphs()
            self.bookkeeping.keep_for_graphs()
        else:
            self.bookkeeping.counters.ask(state, table.work.hyper.mirrored_inputs)

    def _fast_path(self, groups: Groups, states: States) -> Ready | None:
        """Fast path: find what changed, and bind only that anew; None if all must be checked."""
        table = self.table
        seen = None if table is None else table.look(groups, states)
        if table is None or seen is None:
            return None
        is_written, staged, changed = seen
        for index in staged:
            param: Any = table.work.entries[index].param
            check_pair(param, param.grad, self.bookkeeping.options.changes_gradients)
        # Before `collect`: the numbers in the groups may have been loaded along with the state.
        if changed and not can_rebind(table, states, changed):
            return None
        sources = self._written_sources(table, groups, states) if is_written else []
        if sources is None or not table.work.params_with_grad:
            return None
        if not changed and not sources:
            return Ready(staged, [])
        new = self._rebind(table, groups, states, Changes(changed, sources))
        again = None if new is None else table.look_again(changed)
        if new is None or again is None:
            self._undo(states, new or [])
            return None
        return Ready(staged + again, new)

    def _written_sources(
        self, table: BoundTable, groups: Groups, states: States
    ) -> list[Place] | None:
        """Collect what the caller wrote to the groups; which hyperparameters have another source.

        None if the slow path has to decide.
        """
        books = self.bookkeeping
        if not any(states.values()) and books.hyper.lr_was_written_as_zero(groups):
            return None  # perhaps only to have state allocated
        table.suspend_guard()
        books.collect(groups, states)
        return None if table.is_stale else changed_sources(books, table)

    def _rebind(
        self, table: BoundTable, groups: Groups, states: States, changes: Changes
    ) -> list[Tensor] | None:
        """Bind anew what changed; returns the parameters whose state was newly initialized.

        None if the table has to be built from the start.
        """
        if not can_rebind(table, states, changes.rows):
            return None
        self.table = None  # an error or interrupt leaves none, and the next step builds one
        new = None
        try:
            new = rebind(self.bookkeeping, table, states, changes)
        finally:
            if new is None:
                self._used = table.used_params()
        if new is not None:
            self.table = table
            self.bookkeeping.describe_written(groups)
        return new

    def _undo(self, states: States, newly_initialized: list[Tensor]) -> None:
        """Take away the state of parameters that the step made for them."""
        for param in newly_initialized:
            states.pop(param, None)
            self.forget_table()

    def _slow_path(self, groups: Groups, states: States) -> Ready | None:
        """Slow path: validate every tensor; rebind if stale. None: nothing to do."""
        checked = slow_path.check(self.bookkeeping, self.table, groups, states)
        if checked is None:
            return None
        table, changes, new = self.table, checked.changes, None
        if table is not None and changes is not None:
            self.bookkeeping.masks.mark(states, table.used_parameters())  # a load may have lost it
            new = [] if changes.are_none else self._rebind(table, groups, states, changes)
        if new is None:
            new = self._bind(groups, states, checked.with_gradient)
        assert self.table is not None
        return Ready(self.table.read_all(groups, states, checked.with_gradient), new)

    def _bind(self, groups: Groups, states: States, with_gradient: list[Tensor]) -> list[Tensor]:
        """Build a new table; returns the parameters whose state was newly initialized."""
        books = self.bookkeeping
        self.forget_table()  # before binding: it may hold copies of every tensor
        self.table, new = bind(
            books, self.backend, self.instruction_set, groups, states, with_gradient, self._used
        )
        self._used = set()
        books.describe_written(groups)
        return new

    def push(self, groups: Groups, states: States) -> None:
        """Upload the values in the groups to where captured graphs read them.

        Raises:
            RuntimeError: more than numbers changed, which needs a new bound table.
        """
        if self.table is None or self.table.is_stale:
            return
        books = self.bookkeeping
        books.collect(groups, states)
        if not is_current(books, self.table):
            raise RuntimeError(
                "push: param_groups holds more than other numbers (another option, or a Tensor or "
                "Schedule in place of a number); take a step and capture again"
            )
        self.upload()

    def upload(self) -> None:
        """Upload the collected values to every table, captured ones too, that they still fit."""
        for table in (self.table, *self._captured):
            if table is None or not table.backend.reads_on_device:
                continue
            if is_current(self.bookkeeping, table):
                table.run.push(table.work)  # type: ignore[attr-defined]
