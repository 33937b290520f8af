"""The engine: walks the gradients, keeps the table, runs a backend, reports what it found."""

from typing import Any

import torch
from torch import Tensor

from lrfused import native, reference
from lrfused.cpu import CpuStep
from lrfused.device_state import DeviceState, Field
from lrfused.gradients import check_moment, check_pair
from lrfused.hyperparameters import Hyperparameters
from lrfused.options import Error, GroupOptions, Options, Slot
from lrfused.table import Entry, Operand, check_no_shared_memory, idle_entry, make_entry
from lrfused.work import Work

BACKENDS = ("auto", "reference", "cpu")
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
Groups = list[dict[str, Any]]
States = Any  # torch's defaultdict: parameter -> {"step", "exp_avg", ...}


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
        self._params: list[Tensor] = []  # whose counts self._state holds, in this order
        self._steps: list[Tensor] = []  # what state["step"] shows: views of self._state.steps
        self._inputs: list[tuple[Tensor, int]] = []  # tensors that programs read, addresses
        self._work: Work | None = None
        self._native: CpuStep | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_work": None, "_native": None}

    # State

    def state(self, groups: Groups) -> DeviceState:
        """The counters, on the device of the parameters; made when first needed."""
        if self._state is None:
            params = [p for group in groups for p in group["params"]]
            device = params[0].device if params else torch.device("cpu")
            self._state = DeviceState(self.options.loss_scale, len(groups), len(params), device)
        return self._state

    def counter(self) -> int:
        """Completed, non-skipped steps."""
        return 0 if self._state is None else int(self._state.words[Field.STEP])

    def forget_table(self) -> None:
        """The next step builds a new table."""
        self._work = self._native = None

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
            self._move_counts(groups, states)
            return
        work = self._current_work(groups, states, with_gradient)
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
        if self._native is None:
            reference.step(work)
        else:
            self._native(work)
        self._raise_error(work)
        if self.options.write_grads:
            staged += work.gradients.values()
        for operand in staged:
            operand.write_back()
        work.gradients = {}
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

    def _current_work(self, groups: Groups, states: States, with_gradient: list[Tensor]) -> Work:
        changed = self.hyper.collect(groups)
        options = [_with_torch_options(o, g) for o, g in zip(self.groups, groups, strict=True)]
        if options != self.groups:
            self.groups, changed = options, True
        if changed or not self._is_current(groups, states):
            self._work = self._build(groups, states, with_gradient)
            self._native = CpuStep(self._work, self.instruction_set) if self._use_cpu() else None
        assert self._work is not None
        return self._work

    def _is_current(self, groups: Groups, states: States) -> bool:
        """The table still describes what the caller's objects are."""
        work = self._work
        if work is None or len(work.entries) != sum(len(g["params"]) for g in groups):
            return False
        index = 0
        for g, group in enumerate(groups):
            for param in group["params"]:
                entry = work.entries[index]
                if (
                    entry.param is not param
                    or entry.group != g
                    or (entry.pointer is not None and entry.pointer != param.data_ptr())
                    or not self._state_is_current(index, entry, states)
                ):
                    return False
                index += 1
        return all(tensor.data_ptr() == pointer for tensor, pointer in self._inputs)

    def _state_is_current(self, index: int, entry: Entry, states: States) -> bool:
        state = states.get(entry.param)
        if not state:
            return entry.m is None and entry.param.grad is None
        for operand, key in zip((entry.m, entry.v, entry.x), MOMENTS, strict=True):
            if state.get(key) is not (operand.tensor if operand is not None else None):
                return False
        return state.get("step") is self._steps[index]

    def _use_cpu(self) -> bool:
        assert self._work is not None
        devices = {e.param.device.type for e in self._work.entries if e.pointer is not None}
        if self.backend == "cpu" and devices - {"cpu"}:
            raise ValueError(f"backend: 'cpu' takes parameters on the cpu, got {sorted(devices)}")
        return self.backend != "reference" and native.cpu is not None and devices <= {"cpu"}

    def _build(self, groups: Groups, states: States, with_gradient: list[Tensor]) -> Work:
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
        for (_, param), use in zip(params, used, strict=True):
            for key in MOMENTS if use else ():
                if key in states.get(param, {}):
                    check_moment(key, states[param][key], param, param.device)
        self._inputs = [(tensor, tensor.data_ptr()) for tensor, _ in inputs]
        self._move_counts(groups, states)
        for index, (g, param) in enumerate(params):
            if used[index]:
                allocate(states[param], param, self.groups[g].amsgrad)
                states[param]["step"] = self._steps[index]
                entries[index] = make_entry(param, g, self.groups[g].agc, states[param])
        return Work(entries, self.groups, self.options, state, self.hyper)

    def _move_counts(self, groups: Groups, states: States) -> None:
        """Counts for the present list of parameters: ours, unless state["step"] was rebound."""
        state = self.state(groups)
        before = {id(p): i for i, p in enumerate(self._params)}
        counts, products, views = state.counts, state.products, self._steps
        params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
        state.set_groups(len(groups))
        state.set_tensors(len(params))
        for new, (g, param) in enumerate(params):
            old, shown = before.get(id(param)), states.get(param, {}).get("step")
            if shown is None:
                continue  # no state, no updates so far
            if old is not None and shown is views[old]:
                state.set_count(new, int(counts[old]), products[old])
            else:
                betas = torch.tensor([float(b) for b in groups[g]["betas"]], dtype=torch.float64)
                state.set_count(new, int(shown), betas ** int(shown))
        self._params = [p for _, p in params]
        self._bind_steps(states)

    def _bind_steps(self, states: States) -> None:
        """Let state["step"] show our counts."""
        steps = self._state.steps if self._state is not None else torch.zeros(0)
        self._steps = [steps[i] for i in range(len(steps))]
        for param, view in zip(self._params, self._steps, strict=True):
            if states.get(param):
                states[param]["step"] = view

    def counts_of(
        self, params: list[Tensor], states: States
    ) -> tuple[list[int], list[list[float]]]:
        """The exact counts of parameters and the products of their betas, for a checkpoint."""
        places = {id(p): i for i, p in enumerate(self._params)}
        counts, products = [], []
        for param in params:
            shown, place = states.get(param, {}).get("step"), places.get(id(param))
            count = 0 if shown is None else int(shown)
            product = [1.0, 1.0]
            if place is not None and self._state is not None:
                exact = int(self._state.counts[place])
                count = exact if float(self._state.steps[place]) == float(count) else count
                product = self._state.products[place].tolist()
            counts.append(count)
            products.append(product)
        return counts, products

    def restore(
        self, groups: Groups, states: States, counts: list[int], products: list[Tensor]
    ) -> None:
        """Take over loaded counts, exactly, with the products of the betas (pairs of float64)."""
        state = self.state(groups)
        params = [p for group in groups for p in group["params"]]
        # In place where it can be: captured graphs know these addresses.
        if [id(p) for p in params] != [id(p) for p in self._params]:
            self._params = params
            state.set_tensors(len(params))
        for index, count in enumerate(counts):
            state.set_count(index, count, products[index])
        self._bind_steps(states)

    def copied(self, states: States) -> None:
        """After a deepcopy or unpickling: the views into our memory are views no more."""
        self._bind_steps(states)

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
