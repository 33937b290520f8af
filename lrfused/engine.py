"""The engine: walks the gradients, keeps the table, runs a backend, reports what it found."""

from typing import Any

import torch
from torch import Tensor

from lrfused.backends import Choice, checked
from lrfused.build import Table, is_current, watch
from lrfused.capture import is_capturing
from lrfused.closer_look import look_closely
from lrfused.counts import Counts, Groups, States
from lrfused.cpu import CpuStep
from lrfused.device_queue import DeviceQueue
from lrfused.device_state import DeviceState, Field, Reading
from lrfused.gradients import check_pair
from lrfused.hyperparameters import Hyperparameters
from lrfused.latched import error_of
from lrfused.options import GroupOptions, Options
from lrfused.readback import Readback, Seen
from lrfused.staging import run_with_copies


class Engine:
    """Everything of an optimizer that torch's base class does not keep.

    It outlives tables: parameters may be replaced, groups added, state loaded; the next step
    notices and builds a new table, and the counts of parameters move along.
    """

    def __init__(self, options: Options, backend: Choice):
        self.options = options
        self.backend = checked(backend)
        self.instruction_set = "auto"
        self.groups: list[GroupOptions] = []
        self.hyper = Hyperparameters()
        self.stepped = self.measured = False
        self.readback: Readback | None = None  # from the first step of which nothing is known on
        self._state: DeviceState | None = None
        self._table: Table | None = None
        self._captured: list[Table] = []  # replaced ones, in which graphs go on

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "readback": None, "_table": None, "_captured": []}

    # State

    def state(self, groups: Groups) -> DeviceState:
        """The counters, on the device of the first parameter; made when first needed."""
        if self._state is None:
            params = [p for group in groups for p in group["params"]]
            device = params[0].device if params else torch.device("cpu")
            self._state = DeviceState(self.options.loss_scale, len(groups), device)
        return self._state

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
            with torch.no_grad():
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
        self.stepped, self.measured = True, table.measures
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

    def read(self, groups: Groups) -> Reading:
        """Everything about the steps so far; waits for the device, and refreshes the mirrors.

        Raises:
            RuntimeError: one of them was refused, and the host did not know yet.
        """
        reading = self.state(groups).read()
        if self.readback is not None:
            self.readback.forget()
        self._raise_latched(reading)
        self.hyper.mirror(groups, int(reading[Field.STEP]))
        return reading

    def _raise_latched(self, reading: Reading) -> None:
        error = error_of(reading)
        if error is not None:
            if self.readback is not None:
                self.readback.forget()
            assert self._state is not None
            self._state.clear_error()
            raise error

    def push(self, groups: Groups) -> None:
        """Upload what stands in the groups, where captured graphs read it.

        Raises:
            RuntimeError: something stands there that takes another table, not other numbers.
        """
        if self._table is None:
            return
        self.collect(groups)
        if not is_current(self._table.work, self.groups, self.hyper):
            raise RuntimeError(
                "push: param_groups holds more than other numbers (another option, or a Tensor in "
                "place of a number); take a step and capture again"
            )
        for table in (self._table, *self._captured):
            if table.takes_tensors and is_current(table.work, self.groups, self.hyper):
                table.run.push(table.work)  # type: ignore[attr-defined]

    # Is the table still right?

    def _look(self, groups: Groups, states: States) -> list[int] | None:
        """A quick look: the gradients that need a closer one; None if everything does."""
        table = self._table
        walk = None if table is None else table.walk
        if table is None or walk is None:
            return None
        seen = walk.look(groups, states, table.work.addresses)
        if seen is None:
            return None
        written, table.work.moving, closer = seen
        if written:
            table.walk = None
            self.collect(groups)
            table.walk = walk
            if not is_current(table.work, self.groups, self.hyper):
                return None
        if not table.work.moving:
            return None
        for index in closer:
            param = table.work.entries[index].param
            check_pair(param, param.grad, self.options.write_grads)
        return closer

    def collect(self, groups: Groups) -> None:
        """Take in what the caller wrote to the groups."""
        self.hyper.collect(groups)
        options = [_with_torch_options(o, g) for o, g in zip(self.groups, groups, strict=True)]
        if options != self.groups:
            self.groups = options

    def count(self, groups: Groups, states: States) -> None:
        """Counts for the present list of parameters."""
        state = self.state(groups)
        state.tensors = state.tensors.moved(groups, states)
        state.tensors.bind(states)

    def restore(
        self, groups: Groups, states: States, counts: list[int], products: list[Tensor]
    ) -> None:
        """Take over loaded counts, exactly, with the products of the betas (pairs of float64)."""
        state = self.state(groups)
        if self.readback is not None:
            self.readback.forget()
        params = [p for group in groups for p in group["params"]]
        # In place where it can be: captured graphs know these addresses.
        if [id(p) for p in params] != [id(p) for p in state.tensors.params]:
            self.forget_table()
            state.tensors = Counts(params, state.words.device)
        for index, count in enumerate(counts):
            state.tensors.set(index, count, products[index])
        state.tensors.bind(states)

    def copied(self, states: States) -> None:
        """After a deepcopy or unpickling."""
        if self._state is not None:
            self._state.tensors.renew_views()
            self._state.tensors.bind(states)


def _with_torch_options(options: GroupOptions, group: dict[str, Any]) -> GroupOptions:
    """The options with what stands in the group, which the caller may change at any time."""
    amsgrad, maximize = bool(group["amsgrad"]), bool(group["maximize"])
    if (options.amsgrad, options.maximize) == (amsgrad, maximize):
        return options
    return GroupOptions(**{**vars(options), "amsgrad": amsgrad, "maximize": maximize})
