"""BoundTable: a backend bound to fixed addresses, with its guard."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lrfused import native
from lrfused.backends.protocol import Backend, Runner
from lrfused.backends.work import Outcome, Work
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.staging import run_with_copies
from lrfused.groups.matrix import watched_keys
from lrfused.memory.checks import PLAIN
from lrfused.memory.operands import Entry, Place, place_of
from lrfused.rules import UpdateRule
from lrfused.state.masks import Masks
from lrfused.state.step_counts import Groups, States


@dataclass(eq=False)
class BoundTable:
    """A backend bound to fixed addresses, and the guard that detects changes.

    The guard (native.cpu.Guard) exists where this torch allows it. It detects the caller's changes;
    the optimizer's own changes show in the versions of its state and settings.
    """

    work: Work
    backend: Backend
    run: Runner
    measures: bool
    masks: Masks
    is_captured: bool = False  # a CUDA graph reads its memory and may be replayed any time
    guard: Any = None
    _is_trusted: bool = False  # the guard matches what the last step left behind
    _apart: list[int] = field(init=False)  # what is staged even without a gradient
    _state_version: int = field(init=False)  # the state version that the table is bound to
    _masks_version: int = field(init=False)  # and that of the masks
    _groups_version: int = -1  # the version of the groups that the guard was made for

    def __post_init__(self) -> None:
        self._state_version = self.work.state.version
        self._masks_version = self.masks.version
        self._apart = [i for i, entry in enumerate(self.work.entries) if self._is_apart(entry)]

    # A step

    def step(self, staged: list[int], grad_scale: Any, found_inf: Any) -> Outcome:
        """One step; the gradients at the indices in ``staged`` are staged through copies.

        ``grad_scale`` and ``found_inf`` come from a GradScaler, or are None. A backend that reads
        on the device gets them as they are, any other as numbers.
        """
        work = self.work
        scale: Any = 1.0
        found: Any = False
        if grad_scale is not None or found_inf is not None:
            scale = 1.0 if grad_scale is None else grad_scale
            found = False if found_inf is None else found_inf
            if not self.backend.reads_on_device:
                scale, found = float(scale), float(found) != 0.0
        work.grad_scale, work.found_inf = scale, found
        if self._apart:
            staged = [*staged, *(i for i in self._apart if work.entries[i].param.grad is None)]
        return run_with_copies(self.run, work, staged) if staged else self.run(work)

    def _is_apart(self, entry: Entry) -> bool:
        """True if it is averaged and something of it is staged: also without a gradient."""
        averages = self.work.groups[entry.group].average_every > 0
        return averages and any(operand.staged is not None for operand in entry.operands)

    def stage_all(self, with_gradient: list[Tensor]) -> list[int]:
        """Stage every gradient; returns the indices of the parameters that have one."""
        self.work.addresses[:, 1] = -1
        self.work.params_with_grad = with_gradient
        return [i for i, e in enumerate(self.work.entries) if e.param.grad is not None]

    def used_params(self) -> set[int]:
        """Ids of the parameters that have had a part in a step, whether or not they have state."""
        return {id(entry.param) for entry in self.work.entries if not entry.is_idle}

    def keep_for_graphs(self) -> None:
        """Mark the table as captured: a CUDA graph has recorded a step of it."""
        self.is_captured = True

    # The guard

    def look(self, groups: Groups, states: States) -> tuple[bool, list[int]] | None:
        """Run the guard: whether a group was written to, and which gradients need staging.

        None if the table may be invalid, or a new parameter has a gradient.
        """
        work = self.work
        if (
            not self._is_trusted
            or self._groups_version != work.hyper.version
            or self.is_stale
            or not isinstance(groups, list)
        ):
            return None
        seen = self.guard.look(groups, states, work.addresses)
        if seen is None:
            return None
        written, work.params_with_grad, staged = seen
        return written, staged

    def suspend_guard(self) -> None:
        """Distrust the guard until `renew_guard`, since a step may fail before that."""
        self._is_trusted = False

    def drop_guard(self) -> None:
        """Discard an outdated guard; the next one is built from scratch."""
        self._is_trusted, self.guard = False, None

    def renew_guard(self, groups: Groups, states: States) -> None:
        """Trust the guard again after a completed step, when everything matches the table."""
        if self.guard is None:
            self.guard = self._make_guard(groups, states)
        else:
            self.guard.remember(groups)
        self._groups_version = self.work.hyper.version
        self._is_trusted = self.guard is not None

    def _make_guard(self, groups: Groups, states: States) -> Any:
        """A new guard, or None where every step must take the slow path."""
        work = self.work
        if (
            native.cpu is None
            or not native.tensor_readers
            or not self.backend.reads_addresses
            or not isinstance(groups, list)
            or any(type(e.param) not in PLAIN for e in work.entries)
        ):
            return None
        params = [(e.param, e.group, not e.is_idle, e.is_plain) for e in work.entries]
        watched = [tensor for tensor, _ in work.watched]
        for state in (s for s in states.values() if isinstance(s, dict)):
            watched += [tensor for tensor in state.values() if isinstance(tensor, Tensor)]
        keys = watched_keys(work.rule)
        writes, reader = work.options.changes_gradients, native.tensor_readers[0]
        return native.cpu.Guard(groups, states, params, watched, keys, writes, reader)

    # Full checks, for the slow path

    @property
    def is_stale(self) -> bool:
        """True if memory that the table is bound to was replaced, or a mask came or went."""
        versions = (self.work.state.version, self.masks.version)
        return (self._state_version, self._masks_version) != versions

    def is_current(self, books: Bookkeeping) -> bool:
        """True if the table was built for the present groups, options and schedules."""
        work, hyper = self.work, books.hyper
        if work.rows != hyper.rows or work.groups != books.group_options:
            return False
        return all(x is y for x, y in zip(work.sources, hyper.sources, strict=True))

    def holds(self, groups: Groups, states: States) -> bool:
        """True if the table still describes the caller's parameters and state."""
        params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
        tensors = self.work.state.tensors
        counts = zip(tensors.views, tensors.places, strict=True)
        return (
            not self.is_stale
            and len(params) == len(self.work.entries)
            and all(
                entry.param is param
                and entry.group == g
                and _holds(self.work.rule, entry, *count, states)
                for (g, param), entry, count in zip(params, self.work.entries, counts, strict=True)
            )
            and all(tensor.data_ptr() == pointer for tensor, pointer in self.work.watched)
        )


def _holds(
    rule: UpdateRule, entry: Entry, views: dict[str, Tensor], place: Place, states: States
) -> bool:
    """True if the parameter and its state are still the tensors that the table was built from."""
    state = states.get(entry.param) or {}
    if entry.is_idle:
        return not state and entry.param.grad is None
    if any(state.get(key) is not view for key, view in views.items()):
        return False
    if "step" in views and place_of(views["step"]) != place:
        return False
    for operand, key in zip(entry.state, rule.state_keys, strict=True):
        now = state.get(key)
        if operand is None:
            if now is not None:
                return False
        elif not (isinstance(now, Tensor) and operand.is_of(now)):
            return False
    return entry.p.is_of(entry.param)
