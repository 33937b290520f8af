"""The engine: walks the gradients, keeps the table, runs a backend, reports what it found."""

from typing import Any

import torch
from torch import Tensor

from lrfused import native, reference
from lrfused.counts import Counts, Groups, States
from lrfused.cpu import CpuStep
from lrfused.device_state import DeviceState, Field
from lrfused.gradients import check_moment, check_pair
from lrfused.hyperparameters import Hyperparameters
from lrfused.options import Error, GroupOptions, Options, Slot
from lrfused.table import Entry, Operand, check_no_shared_memory, idle_entry, make_entry
from lrfused.work import Work

BACKENDS = ("auto", "reference", "cpu")
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


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
        self.measured = False
        self._state: DeviceState | None = None
        self._table: tuple[Work, CpuStep | None] | None = None

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
        return None if self._table is None else self._table[1]

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
        with_gradient = [p for group in groups for p in group["params"] if p.grad is not None]
        if not with_gradient:
            return
        for param in with_gradient:
            check_pair(param, param.grad, self.options.write_grads)
        if self._only_allocates(groups, states, with_gradient):
            for group in groups:
                for param in group["params"]:
                    if param.grad is not None:
                        allocate(states[param], param, group["amsgrad"])
            self._count(groups, states)
            return
        work, native_step = self._current_table(groups, states, with_gradient)
        work.gradients = {
            index: Operand.of(entry.param.grad, entry.order)
            for index, entry in enumerate(work.entries)
            if entry.param.grad is not None
        }
        work.grad_scale, work.found_inf = grad_scale, found_inf
        staged = [
            o for i in work.gradients for o in work.entries[i].operands if o.staged is not None
        ]
        for operand in staged:
            operand.refresh()
        if self.options.write_grads:
            staged += work.gradients.values()
        try:
            try:
                if native_step is None:
                    reference.step(work)
                else:
                    native_step(work)
            finally:
                _write_back(staged)
        except KeyboardInterrupt:  # on the way into _write_back, perhaps
            _write_back(staged)
            raise
        work.gradients = {}
        self._raise_error(work)
        self.measured = self.options.measures(self.groups)

    @staticmethod
    def _only_allocates(groups: Groups, states: States, with_gradient: list[Tensor]) -> bool:
        """torch.distributed.checkpoint's way to have state allocated: nothing may move.

        It writes every lr as 0, fills all gradients with zeros and calls step().
        """
        return (
            not any(states.values())
            and all(float(group["lr"]) == 0.0 for group in groups)
            and not any(p.grad is not None and bool(p.grad.any()) for p in with_gradient)
        )

    def _current_table(
        self, groups: Groups, states: States, with_gradient: list[Tensor]
    ) -> tuple[Work, CpuStep | None]:
        self.hyper.collect(groups)
        options = [_with_torch_options(o, g) for o, g in zip(self.groups, groups, strict=True)]
        if options != self.groups:
            self.groups = options
        if self._table is None or not self._is_current(self._table[0], groups, states):
            # Whatever happens on the way, nobody steps with addresses that are no more.
            self._table = None
            self._table = self._build(groups, states, with_gradient)
        return self._table

    def _is_current(self, work: Work, groups: Groups, states: States) -> bool:
        """The table still describes what the caller's objects are."""
        if work.groups is not self.groups or any(
            x is not y for x, y in zip(work.sources, self.hyper.sources, strict=True)
        ):
            return False
        if len(work.entries) != sum(len(g["params"]) for g in groups):
            return False
        index = 0
        for g, group in enumerate(groups):
            for param in group["params"]:
                entry = work.entries[index]
                if (
                    entry.param is not param
                    or entry.group != g
                    or (entry.pointer is not None and entry.pointer != param.data_ptr())
                    or not _state_is_current(entry, work.state.tensors.views[index], states)
                ):
                    return False
                index += 1
        return all(tensor.data_ptr() == pointer for tensor, pointer in work.inputs)

    def _use_cpu(self, entries: list[Entry]) -> bool:
        devices = {e.param.device.type for e in entries if e.pointer is not None}
        if self.backend == "cpu" and devices - {"cpu"}:
            raise ValueError(f"backend: 'cpu' takes parameters on the cpu, got {sorted(devices)}")
        return self.backend != "reference" and native.cpu is not None and devices <= {"cpu"}

    def _build(
        self, groups: Groups, states: States, with_gradient: list[Tensor]
    ) -> tuple[Work, CpuStep | None]:
        """A new table; state is allocated for parameters that have their first gradient."""
        params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
        state = self.state(groups)
        inputs = [node._payload for _, _, sch in self.hyper.programs for node in sch.inputs]
        for tensor, name in inputs:
            _check_input(tensor, name, state.words.device)
        gradients = {id(p) for p in with_gradient}
        used = [id(p) in gradients or bool(states.get(p)) for _, p in params]
        entries = [
            make_entry(p, g, self.groups[g].agc, {}) if use else idle_entry(p, g)
            for (g, p), use in zip(params, used, strict=True)
        ]
        check_no_shared_memory(entries)
        use_cpu = self._use_cpu(entries)
        for (_, param), use in zip(params, used, strict=True):
            for key in MOMENTS if use else ():
                if key in states.get(param, {}):
                    check_moment(key, states[param][key], param, param.device)
        for (g, param), use in zip(params, used, strict=True):
            if use:
                allocate(states[param], param, self.groups[g].amsgrad)
        self._count(groups, states)
        state.set_groups(len(groups))
        for index, (g, param) in enumerate(params):
            if used[index]:
                entries[index] = make_entry(param, g, self.groups[g].agc, states[param])
        addresses = [(tensor, tensor.data_ptr()) for tensor, _ in inputs]
        work = Work(
            entries, self.groups, self.options, state, self.hyper, self.hyper.sources, addresses
        )
        return work, CpuStep(work, self.instruction_set) if use_cpu else None

    def _count(self, groups: Groups, states: States) -> None:
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

    def _raise_error(self, work: Work) -> None:
        """Turn the error that plan latched into an exception, once."""
        reading = work.state.read()
        error, step = reading[Field.ERROR], reading[Field.ERROR_STEP]
        if error == Error.NONE:
            return
        work.state.words[Field.ERROR] = Error.NONE
        if error == Error.GRADIENT:
            raise RuntimeError(
                f"step {step}: a gradient is not finite (nonfinite='raise'); nothing was changed"
            )
        slot, value = Slot(int(reading[Field.ERROR_SLOT])), reading[Field.ERROR_VALUE]
        raise RuntimeError(
            f"step {step}: {slot.name.lower()} of param_groups[{reading[Field.ERROR_GROUP]}] is "
            f"{value}, it must be {_rule(slot)}; nothing was changed"
        )


def _state_is_current(entry: Entry, step: Tensor, states: States) -> bool:
    """The parameter's state holds the tensors that the table was built from."""
    state = states.get(entry.param)
    if not state:
        return entry.m is None and entry.param.grad is None
    for operand, key in zip((entry.m, entry.v, entry.x), MOMENTS, strict=True):
        if state.get(key) is not (operand.tensor if operand is not None else None):
            return False
    return state.get("step") is step


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


def allocate(state: dict[str, Tensor], param: Tensor, amsgrad: bool) -> None:
    """The moments that a parameter does not have yet, as torch allocates them."""
    for key in MOMENTS[: 3 if amsgrad else 2]:
        if key not in state:
            state[key] = torch.zeros_like(param, memory_format=torch.preserve_format).detach()


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


def _check_input(tensor: Tensor, name: str, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(
            f"{name}: the tensor must be on the parameters' device {device}, got {tensor.device}"
        )
