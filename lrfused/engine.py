"""The engine: walks the gradients, keeps the table, runs a backend, reports what it found."""

from typing import Any

import torch
from torch import Tensor

from lrfused import native
from lrfused.build import Table, allocate, build, holds, is_current, watch
from lrfused.counts import Counts, Groups, States
from lrfused.cpu import CODES, CpuStep
from lrfused.device_state import DeviceState, Field
from lrfused.distributed import local
from lrfused.gradients import check_pair
from lrfused.hyperparameters import Hyperparameters
from lrfused.options import Error, GroupOptions, Options, Slot
from lrfused.table import Operand, check_no_shared_memory
from lrfused.work import Outcome

BACKENDS = ("auto", "reference", "cpu")


class Engine:
    """Everything of an optimizer that torch's base class does not keep.

    It outlives tables: parameters may be replaced, groups added, state loaded; the next step
    notices and builds a new table, and the counts of parameters move along.
    """

    def __init__(self, options: Options, backend: str):
        if backend not in BACKENDS:
            raise ValueError(f"backend: must be one of {BACKENDS}, got {backend!r}")
        if backend == "cpu" and native.cpu is None:
            raise RuntimeError(f"backend: 'cpu' is not available: {native.why_not_cpu}")
        self.options = options
        self.backend = backend
        self.instruction_set = "auto"
        self.groups: list[GroupOptions] = []
        self.hyper = Hyperparameters()
        self.stepped = self.measured = False
        self._state: DeviceState | None = None
        self._table: Table | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    # State

    def state(self, groups: Groups) -> DeviceState:
        """The counters, on the device of the parameters; made when first needed."""
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
        """The next step builds a new table."""
        self._table = None

    # The step

    def step(self, groups: Groups, states: States, grad_scale: float, found_inf: bool) -> None:
        """One step over all parameters that have a gradient; none: nothing happens.

        Raises:
            RuntimeError, TypeError, ValueError: a gradient, a parameter or a hyperparameter
                cannot be used; nothing was changed.
        """
        made: list[Tensor] = []
        closer = self._look(groups, states)
        if closer is None:
            with torch.no_grad():
                closer, made = self._look_closely(groups, states)
        table = self._table
        if table is None or closer is None:
            return
        # Until all is well again: after an error everything gets a closer look.
        walk, table.walk = table.walk, None
        table.work.grad_scale, table.work.found_inf = grad_scale, found_inf
        outcome = self._run_with_copies(table, closer) if closer else table.run(table.work)
        if outcome.error:
            for param in made:  # its state, too, is as it was
                del states[param]
                self._table = None
            _raise_error(table.work.state)
        self.stepped, self.measured = True, table.measures
        self.hyper.mirror(groups, outcome.step, values=outcome.values)
        if walk is None:
            walk = watch(table, groups, states)
        else:
            walk.remember(groups)
        table.walk = walk

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
            self._collect(groups)
            table.walk = walk
            if not is_current(table.work, self.groups, self.hyper):
                return None
        if not table.work.moving:
            return None
        for index in closer:
            param = table.work.entries[index].param
            check_pair(param, param.grad, self.options.write_grads)
        return closer

    def _look_closely(
        self, groups: Groups, states: States
    ) -> tuple[list[int] | None, list[Tensor]]:
        """Check everything, and build a new table where the old one does not hold.

        Returns the places of the gradients (None: there is nothing to be done) and the
        parameters that got their state for it.
        """
        with_gradient = [p for group in groups for p in group["params"] if p.grad is not None]
        for param in with_gradient:
            check_pair(param, param.grad, self.options.write_grads)
        if self.options.write_grads:
            gradients = [local(p.grad) for p in with_gradient]
            check_no_shared_memory("gradients (write_grads=True): two", gradients)
        if not with_gradient:
            return None, []
        if self._only_allocates(groups, states, with_gradient):
            for group in groups:
                for param in group["params"]:
                    if param.grad is not None:
                        allocate(states[param], param, group["amsgrad"])
            self.count(groups, states)
            return None, []
        self._collect(groups)
        made: list[Tensor] = []
        table = self._table
        # Whatever happens on the way, nobody steps with addresses that are no more.
        self._table = None
        if table is None or not (
            is_current(table.work, self.groups, self.hyper) and holds(table.work, groups, states)
        ):
            table, made = build(self, groups, states, with_gradient)
        table.walk = None
        table.work.addresses[:, 1] = -1
        table.work.moving = with_gradient
        self._table = table
        return [i for i, e in enumerate(table.work.entries) if e.param.grad is not None], made

    def _collect(self, groups: Groups) -> None:
        """Take in what the caller wrote to the groups."""
        self.hyper.collect(groups)
        options = [_with_torch_options(o, g) for o, g in zip(self.groups, groups, strict=True)]
        if options != self.groups:
            self.groups = options

    @torch.no_grad()
    def _run_with_copies(self, table: Table, places: list[int]) -> Outcome:
        """The step; what it cannot use where it lies is carried to copies and back."""
        work = table.work
        copies: list[Operand] = []
        for index in places:
            entry = work.entries[index]
            assert entry.param.grad is not None
            gradient = Operand.of(entry.param.grad, entry.order)
            work.gradients[index] = gradient
            work.addresses[index] = (gradient.flat.data_ptr(), CODES[gradient.flat.dtype])
            copies += [operand for operand in entry.operands if operand.staged is not None]
            if self.options.write_grads:
                copies.append(gradient)
        for operand in copies:
            operand.refresh()
        try:
            try:
                return table.run(work)
            finally:
                _write_back(copies)
        except KeyboardInterrupt:  # on the way into _write_back, perhaps
            _write_back(copies)
            raise
        finally:
            work.gradients = {}

    @staticmethod
    def _only_allocates(groups: Groups, states: States, with_gradient: list[Tensor]) -> bool:
        """torch.distributed.checkpoint's way to have state allocated: nothing may move.

        It writes every lr as 0, fills all gradients with zeros and calls step().
        """
        return (
            not any(states.values())
            and all(float(group["lr"]) == 0.0 for group in groups)
            and not any(bool(local(p.grad).any()) for p in with_gradient if p.grad is not None)
        )

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
        params = [p for group in groups for p in group["params"]]
        # In place where it can be: captured graphs know these addresses.
        if [id(p) for p in params] != [id(p) for p in state.tensors.params]:
            self._table = None
            state.tensors = Counts(params, state.words.device)
        for index, count in enumerate(counts):
            state.tensors.set(index, count, products[index])
        state.tensors.bind(states)

    def copied(self, states: States) -> None:
        """After a deepcopy or unpickling."""
        if self._state is not None:
            self._state.tensors.renew_views()
            self._state.tensors.bind(states)


def _raise_error(state: DeviceState) -> None:
    """Turn the error that plan latched into an exception, once."""
    reading = state.read()
    error, step = reading[Field.ERROR], reading[Field.ERROR_STEP]
    place, value = reading[Field.ERROR_PLACE], reading[Field.ERROR_VALUE]
    state.words[Field.ERROR] = Error.NONE
    if error == Error.GRADIENT:
        what = "a gradient is not finite (nonfinite='raise')"
    elif error == Error.COUNT:
        what = f"state['step'] of parameter {place} is {value}, it must be a count, in [0, 2**62)"
    else:
        slot = Slot(int(reading[Field.ERROR_SLOT]))
        what = f"{slot.name.lower()} of param_groups[{place}] is {value}, it must be {_rule(slot)}"
    raise RuntimeError(f"step {step}: {what}; nothing was changed")


def _write_back(operands: list[Operand]) -> None:
    """Carry results from copies to the tensors: all of them, an interrupt has to wait."""
    left, waiting = list(operands), None
    while left:
        try:
            while left:
                left[-1].write_back()
                left.pop()
        except KeyboardInterrupt as interrupt:
            waiting = interrupt
    if waiting is not None:
        raise waiting


def _with_torch_options(options: GroupOptions, group: dict[str, Any]) -> GroupOptions:
    """The options with what stands in the group, which the caller may change at any time."""
    amsgrad, maximize = bool(group["amsgrad"]), bool(group["maximize"])
    if (options.amsgrad, options.maximize) == (amsgrad, maximize):
        return options
    return GroupOptions(**{**vars(options), "amsgrad": amsgrad, "maximize": maximize})


def _rule(slot: Slot) -> str:
    if slot in (Slot.CLIP_VALUE, Slot.AGC, Slot.MAX_GRAD_NORM):
        return "0 or greater"
    if slot in (Slot.BETA1, Slot.BETA2):
        return "in [0, 1)"
    return "finite"
