"""BoundTable: a backend bound to fixed addresses, with its guard."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lrfused import native
from lrfused.backends.multi_device import devices_of
from lrfused.backends.protocol import Backend, Runner
from lrfused.backends.work import Outcome, Work
from lrfused.engine.staging import run_with_copies
from lrfused.groups.matrix import watched_keys
from lrfused.memory.checks import PLAIN
from lrfused.memory.operands import Entry
from lrfused.memory.spans import PARAMS, STATE, Spans
from lrfused.state.masks import Masks
from lrfused.state.step_counts import Groups, States

# Whether a group was written to, gradients to stage, rows that are out of date. (A plain tuple: a
# named one would take a small model's step noticeably longer.)
Seen = tuple[bool, list[int], list[int]]


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
    version: int = 0  # how often rows or sources were replaced
    is_captured: bool = False  # a CUDA graph reads its memory and may be replayed any time
    guard: Any = None
    _spans: Spans | None = None
    _memory: list[Tensor] = field(default_factory=list)  # what a graph writes
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

    def read_all(self, groups: Groups, states: States, with_gradient: list[Tensor]) -> list[int]:
        """Read every gradient; returns the indices of those that need staging."""
        self.work.addresses[:, 1] = -1
        self.work.params_with_grad = with_gradient
        every = [i for i, e in enumerate(self.work.entries) if e.param.grad is not None]
        if self.guard is None:
            self.guard = self._make_guard(groups, states)
        staged = None if self.guard is None else self.look_again(every)
        return every if staged is None else staged

    def used_parameters(self) -> list[Tensor]:
        """The parameters that have had a part in a step, whether or not they have state."""
        return [entry.param for entry in self.work.entries if not entry.is_idle]

    def used_params(self) -> set[int]:
        """Their ids."""
        return set(map(id, self.used_parameters()))

    def keep_for_graphs(self) -> None:
        """Mark the table as captured: a CUDA graph has recorded a step of it.

        The memory that the graph writes stays, whatever the caller rebinds later.
        """
        if not self.is_captured:
            operands = (operand for entry in self.work.entries for operand in entry.operands)
            self._memory = [operand.tensor.detach() for operand in operands]
        self.is_captured = True

    # Rows that are made anew

    def spans_without(self, rows: list[int]) -> Spans:
        """Where the tensors of all other rows lie; found when something changes first."""
        if self._spans is not None:
            for row in rows:
                self._spans.drop(row)
            return self._spans
        self._spans, left = Spans(), set(rows)
        others = [(i, e) for i, e in enumerate(self.work.entries) if not (e.is_idle or i in left)]
        self._spans.put((i, PARAMS, e.p.tensor) for i, e in others)
        self._spans.put((i, STATE, x.tensor) for i, e in others for x in e.operands[1:])
        return self._spans

    def replace(self, indices: list[int], entries: list[Entry], initialized: set[int]) -> None:
        """Put other entries at these indices; the spans lack the state of ``initialized`` ones."""
        self.version += 1
        self.work.replace(indices, entries)
        pairs = [(i, e) for i, e in zip(indices, entries, strict=True) if i in initialized]
        assert self._spans is not None
        self._spans.put((i, STATE, operand.tensor) for i, e in pairs for operand in e.operands[1:])
        new = [i for i, e in zip(indices, entries, strict=True) if self._is_apart(e)]
        self._apart = sorted({*self._apart}.difference(indices).union(new))

    @property
    def is_stale(self) -> bool:
        """True if memory that the table is bound to was replaced, or a mask came or went."""
        versions = (self.work.state.version, self.masks.version)
        return (self._state_version, self._masks_version) != versions

    @cached_property
    def devices(self) -> list[torch.device]:
        """Those of the parameters that take part, and of the counters."""
        return devices_of(self.work.entries, self.work.state.words.device)

    # The guard

    def look(self, groups: Groups, states: States) -> Seen | None:
        """Run the guard; None if more may be invalid than the rows of single parameters."""
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
        written, work.params_with_grad, staged, changed = seen
        return written, staged, changed

    def look_again(self, indices: list[int]) -> list[int] | None:
        """Read the gradients of parameters that were bound anew; returns which need staging.

        None if the slow path has to decide.
        """
        staged: list[int] | None = self.guard.read(indices, self.work.addresses)
        return staged

    def update_guard(self, indices: list[int], states: States) -> None:
        """Let the guard know the rows that were made anew, and the present inputs of schedules."""
        if self.guard is None:
            return
        for index in indices:
            entry = self.work.entries[index]
            self.guard.update(index, not entry.is_idle, entry.is_plain, states)
        self.guard.watch([tensor for tensor, _ in self.work.watched])

    def suspend_guard(self) -> None:
        """Distrust the guard until `renew_guard`, since a step may fail before that."""
        self._is_trusted = False

    def drop_guard(self) -> None:
        """Discard an outdated guard; the next one is built from scratch."""
        self._is_trusted, self.guard = False, None

    def renew_guard(self, groups: Groups, states: States) -> None:
        """Trust the guard again after a completed step, when everything matches the table."""
        if self.guard is not None:
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
        keys = watched_keys(work.rule)
        writes, reader = work.options.changes_gradients, native.tensor_readers[0]
        return native.cpu.Guard(groups, states, params, watched, keys, writes, reader)
