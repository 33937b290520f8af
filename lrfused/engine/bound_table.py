"""A backend bound to fixed addresses, and the guard that sees when they are no longer right."""

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
from lrfused.state.step_counts import Groups, States


@dataclass(eq=False)
class BoundTable:
    """A backend bound to fixed addresses, and the guard that detects changes.

    The guard (native.cpu.Guard) is there where torch lets it look. It sees what a caller may
    change; what the optimizer itself changes shows in the versions of its state and settings.
    """

    work: Work
    backend: Backend
    run: Runner
    measures: bool
    is_captured: bool = False  # a CUDA graph reads its memory, and may be replayed at any time
    guard: Any = None
    _is_trusted: bool = False  # the guard knows what the last step left behind
    _state_version: int = field(init=False)  # whose memory the table has
    _groups_version: int = -1  # that the guard knows

    def __post_init__(self) -> None:
        self._state_version = self.work.state.version

    # A step

    def step(self, staged: list[int], grad_scale: Any, found_inf: Any) -> Outcome:
        """One step; the gradients of the parameters at the places in ``staged`` go by copies.

        ``grad_scale`` and ``found_inf`` are what a GradScaler says, or None: used as they are where
        the device reads them, elsewhere as numbers.
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
        return run_with_copies(self.run, work, staged) if staged else self.run(work)

    def stage_all(self, with_gradient: list[Tensor]) -> list[int]:
        """Let every gradient go the slow way: the places of the parameters that have one."""
        self.work.addresses[:, 1] = -1
        self.work.params_with_grad = with_gradient
        return [i for i, e in enumerate(self.work.entries) if e.param.grad is not None]

    def used_params(self) -> set[int]:
        """Ids of the parameters that have had a part in a step, whether or not they have state."""
        return {id(entry.param) for entry in self.work.entries if not entry.is_idle}

    def keep_for_graphs(self) -> None:
        """A CUDA graph has recorded a step."""
        self.is_captured = True

    # The guard

    def look(self, groups: Groups, states: States) -> tuple[bool, list[int]] | None:
        """Whether a group was written to, and the places of gradients that need staging.

        None: the table may be wrong by now, or a new parameter has a gradient.
        """
        work = self.work
        if (
            not self._is_trusted
            or self._groups_version != work.hyper.version
            or self._state_version != work.state.version
            or not isinstance(groups, list)
        ):
            return None
        seen = self.guard.look(groups, states, work.addresses)
        if seen is None:
            return None
        written, work.params_with_grad, staged = seen
        return written, staged

    def suspend_guard(self) -> None:
        """Until `renew_guard` nothing is taken for right: an error may come in between."""
        self._is_trusted = False

    def drop_guard(self) -> None:
        """What it remembers is out of date; the next one looks at everything anew."""
        self._is_trusted, self.guard = False, None

    def renew_guard(self, groups: Groups, states: States) -> None:
        """A step is done, and everything is as the table has it."""
        if self.guard is None:
            self.guard = self._make_guard(groups, states)
        else:
            self.guard.remember(groups)
        self._groups_version = self.work.hyper.version
        self._is_trusted = self.guard is not None

    def _make_guard(self, groups: Groups, states: States) -> Any:
        """None where everything has to be checked at each step."""
        work = self.work
        if (
            native.cpu is None
            or not native.tensor_readers
            or not self.backend.reads_addresses
            or not isinstance(groups, list)
            or work.options.write_grads
            or any(type(e.param) not in PLAIN for e in work.entries)
        ):
            return None
        params = [(e.param, e.group, not e.is_idle, e.is_plain) for e in work.entries]
        watched = [tensor for tensor, _ in work.watched]
        for state in (s for s in states.values() if isinstance(s, dict)):
            watched += [tensor for tensor in state.values() if isinstance(tensor, Tensor)]
        keys = watched_keys(work.rule)
        return native.cpu.Guard(groups, states, params, watched, keys, native.tensor_readers[0])

    # Everything checked

    @property
    def is_stale(self) -> bool:
        """Other memory took the place of some that the table has."""
        return self._state_version != self.work.state.version

    def is_current(self, books: Bookkeeping) -> bool:
        """The table was built for the groups, options and schedules that there are now."""
        work, hyper = self.work, books.hyper
        if work.rows != hyper.rows or work.groups != books.group_options:
            return False
        return all(x is y for x, y in zip(work.sources, hyper.sources, strict=True))

    def holds(self, groups: Groups, states: States) -> bool:
        """The table still describes what the caller's objects are."""
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
    """The parameter and its state are the tensors that the table was built from."""
    state = states.get(entry.param) or {}
    if entry.is_idle:
        return not state and entry.param.grad is None
    if any(state.get(key) is not view for key, view in views.items()):
        return False
    if "step" in views and place_of(views["step"]) != place:
        return False
    for operand, key in zip(entry.state, rule.keys, strict=True):
        now = state.get(key)
        if operand is None:
            if now is not None:
                return False
        elif not (isinstance(now, Tensor) and operand.is_of(now)):
            return False
    return entry.p.is_of(entry.param)
