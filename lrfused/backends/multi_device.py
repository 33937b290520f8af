"""A step over parameters on several devices of one type.

One device leads: it has the counters and the loss scale, and runs plan. Its peers run measure and
apply over their own tensors. Each device has a bound table with all rows, so that chunks, units and
groups have the same indices everywhere (and the norm its one order of additions), but with the
addresses of its own tensors only: those on other devices have the address 0.

The host waits for nothing: torch orders a copy between two devices with the current streams of
both.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lrfused.backends.work import APPLY, MEASURE, PLAN, Outcome, Place, Work
from lrfused.device.graph_capture import is_capturing
from lrfused.device.streams import StreamUse
from lrfused.memory.operands import Entry, Operand
from lrfused.settings.slots import Slot
from lrfused.state.device_state import DeviceState


class Step(Protocol):
    """Runs the phases of a step on one device, over the work or that device's share of it.

    ``measured`` has one or more columns for each chunk, in order; ``overflows`` of devices are
    combined by bitwise or; ``decided`` is plan's whole result, all that apply reads.
    """

    measured: Tensor
    overflows: Tensor
    decided: Tensor
    uses: StreamUse
    updates: bool

    def update(self, work: Work, indices: list[int], sources: list[Place]) -> None:
        """As that of `protocol.Runner`."""

    def __call__(self, work: Work) -> Outcome:
        """The whole step."""

    def prepare(self, work: Work) -> Any:
        """Upload the host's numbers for this step; returns the arguments of `run`."""

    def run(self, call: Any, phases: int) -> None:
        """Launch these phases of a prepared step."""

    def outcome(self, work: Work) -> Outcome:
        """What the host knows when all phases are launched."""

    def push(self, work: Work) -> None:
        """Upload the caller's numbers to where the kernels read them."""


Make = Callable[[Work, torch.device], Step]


def device_of(entry: Entry) -> torch.device:
    """The device of a parameter. (Tests replace this to fake several devices.)"""
    return entry.device


def devices_of(entries: Iterable[Entry], lead: torch.device) -> list[torch.device]:
    """The devices that take part in a step; the lead comes first, even without parameters."""
    others = {device_of(entry) for entry in entries if not entry.is_idle} - {lead}
    return [lead, *sorted(others, key=str)]


def make_step(make: Make, work: Work) -> "Step | StepTogether":
    """A step bound to the work, on its one device or together on several."""
    devices = devices_of(work.entries, work.state.words.device)
    return StepTogether(make, work, devices) if len(devices) > 1 else make(work, devices[0])


class StepTogether:
    """A step over several devices, of which the first leads."""

    updates = False  # peers would have to agree on other indices

    def __init__(self, make: Make, work: Work, devices: list[torch.device]):
        self.devices = devices
        self._measures = work.options.measures(work.groups)
        self._lead = Share(make, work, devices[0], work.state, {})
        self._peers = [Peer(make, work, device, self._lead) for device in devices[1:]]

    def __call__(self, work: Work) -> Outcome:
        """One step; nothing waits for a device.

        Raises:
            RuntimeError: a CUDA graph is being captured.
        """
        if is_capturing(self.devices[0]):
            raise RuntimeError(
                f"step: the parameters are on several devices ({', '.join(map(str, self.devices))})"
                " and a CUDA graph belongs to one; capture an optimizer for each device"
            )
        # Of an outside GradScaler peers need the scale only, to measure.
        scale = work.grad_scale if self._measures else 1.0
        calls = [self._lead.prepare(work, work.grad_scale, work.found_inf)]
        calls += [peer.prepare(work, scale, False) for peer in self._peers]
        shares = list(zip((self._lead, *self._peers), calls, strict=True))
        if self._measures:
            for peer in self._peers:
                peer.refresh_mirrors()
            for share, call in shares:
                share.step.run(call, MEASURE)
            for peer in self._peers:
                peer.send_measured(self._lead.step)
        self._lead.step.run(calls[0], PLAN)
        for peer in self._peers:  # also resets the peer's overflows
            peer.step.decided.copy_(self._lead.step.decided, non_blocking=True)
        for share, call in shares:
            share.step.run(call, APPLY)
        return self._lead.step.outcome(work)

    def update(self, work: Work, indices: list[int], sources: list[Place]) -> None:
        """Not possible: see ``updates``."""
        raise NotImplementedError

    def push(self, work: Work) -> None:
        """Upload the caller's numbers to where the kernels of each device read them."""
        for share in (self._lead, *self._peers):
            share.step.push(work)


class Share:
    """One device's share of the work, and the step bound to it."""

    def __init__(
        self,
        make: Make,
        work: Work,
        device: torch.device,
        state: DeviceState,
        mirrors: dict[int, Tensor],
    ):
        self._is_away = np.array([device_of(entry) != device for entry in work.entries])
        pairs = zip(work.entries, self._is_away.tolist(), strict=True)
        entries = [_without_memory(entry) if away else entry for entry, away in pairs]
        self._work = replace(work, entries=entries, state=state, mirrors=mirrors)
        self.step = make(self._work, device)

    def prepare(self, work: Work, grad_scale: Any, found_inf: Any) -> Any:
        """Prepare this step; returns the arguments of ``step.run``."""
        own = self._work
        np.copyto(own.addresses, work.addresses)
        own.addresses[self._is_away, 0] = 0
        own.grad_scale, own.found_inf = grad_scale, found_inf
        return self.step.prepare(own)

    def columns(self) -> Tensor:
        """The indices of the columns of ``measured`` whose chunks are on this device."""
        is_here = np.repeat(~self._is_away, self._work.chunks)
        a_chunk = self.step.measured.shape[1] // max(len(is_here), 1)
        return torch.from_numpy(np.flatnonzero(np.repeat(is_here, a_chunk)))


class Peer(Share):
    """The share of a device that does not lead.

    To measure, it needs what the lead knows before plan, in mirrors: the state words, the loss
    scale, and the inputs of the schedules of clip_value.
    """

    def __init__(self, make: Make, work: Work, device: torch.device, lead: Share):
        state = DeviceState(work.rule, None, len(work.groups), device)
        inputs = [
            (slot, x) for _, slot, s in work.hyper.programs for x in map(work.input, s.inputs)
        ]
        mirrored = {id(x): x for slot, x in inputs if slot == Slot.CLIP_VALUE}
        mirrors = {id(x): torch.empty_like(x, device="meta") for _, x in inputs}
        mirrors |= {name: torch.empty_like(x, device=device) for name, x in mirrored.items()}
        super().__init__(make, work, device, state, mirrors)
        self._mirrors = [(state.words, work.state.words), (state.loss_scale, work.state.loss_scale)]
        self._mirrors += [(mirrors[name], x) for name, x in mirrored.items()]
        columns = self.columns()
        self._here = columns.to(self.step.measured.device)
        self._there = columns.to(lead.step.measured.device)
        self.step.uses.add([self._here])
        lead.step.uses.add([self._there])

    @torch.no_grad()
    def refresh_mirrors(self) -> None:
        """Copy the lead's present values to the mirrors."""
        for mirror, original in self._mirrors:
            mirror.copy_(original, non_blocking=True)

    def send_measured(self, lead: Step) -> None:
        """Copy this device's measurements to their columns on the lead."""
        found = self.step.measured.index_select(1, self._here)
        lead.measured.index_copy_(1, self._there, found.to(lead.measured.device, non_blocking=True))
        overflows = self.step.overflows.to(lead.overflows.device, non_blocking=True)
        lead.overflows.bitwise_or_(overflows)


def _without_memory(entry: Entry) -> Entry:
    """An entry of another device: sizes and dtypes, and addresses that are 0."""
    state = tuple(
        None if operand is None else Operand.elsewhere(operand) for operand in entry.state
    )
    return replace(entry, p=Operand.elsewhere(entry.p), state=state, mask=None)
