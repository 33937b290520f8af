"""The Triton backend: one table, stepped by two launches at most."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrfused.backends.rows import Column
from lrfused.backends.triton import layout, shapes
from lrfused.backends.triton import words as w
from lrfused.backends.triton.apply import apply_kernel
from lrfused.backends.triton.kinds import Kind, kind_of, registers_of_measure
from lrfused.backends.triton.launch import check_compiled, launch
from lrfused.backends.triton.measure import measure_kernel
from lrfused.backends.triton.plan import plan_kernel
from lrfused.backends.work import APPLY, MEASURE, PLAN, UNKNOWN, WHOLE_STEP, Outcome, Place, Work
from lrfused.device.graph_capture import is_capturing
from lrfused.device.host_to_device import Upload
from lrfused.device.streams import StreamUse
from lrfused.memory.formats import CODES
from lrfused.settings.slots import Slot
from lrfused.state.device_state import Field


class Launch(NamedTuple):
    """A kernel, its programs and constants, and registers of a thread (0: the compiler's)."""

    kernel: Any
    programs: int
    constants: tuple[Any, ...]
    most_registers: int = 0


class TritonStep:
    """One table, ready to be stepped; ``multi_device.Step`` says how.

    CUDA graphs read this object's memory: it has to live as long as they do.
    """

    updates = True

    def __init__(self, work: Work, device: torch.device):
        self.device = device
        self.knows = device.type == "cpu"  # what a step has decided, when it returns
        self._rule = (work.rule.name, len(work.rule.scalars))
        self._state = layout.state_of(work)
        self.overflows = torch.zeros(0, dtype=torch.int64, device=device)  # stand in measured
        self._on_device = layout.TableOnDevice(device)
        self._programs = _programs(work)
        self._kinds: dict[Kind, int] = {}
        # Which of them a tensor is of, for each dtype of its gradient; -1: not seen yet.
        # (The last column is for no gradient.)
        self._kind_of = np.full((len(work.entries), len(CODES) + 1), -1, dtype=np.int64)
        groups = [work.groups[entry.group] for entry in work.entries]
        self._averaged = np.array([group.average_every > 0 for group in groups], dtype=bool)
        self._dtypes, self._kinds_now = b"", np.zeros(0, dtype=np.int64)  # of the last gradients
        self._gradients = Upload(len(work.entries) * 2, torch.int64, device, fixes=True)
        numbers = int(w.VALUES) + 2 * len(work.groups) * len(Slot)
        self._numbers = Upload(numbers, torch.float64, device)
        self._no_scale = torch.ones(1, dtype=torch.float32, device=device)
        self._no_inf = torch.zeros(1, dtype=torch.float32, device=device)
        self._sizes = b""  # of the tensors and their units, when room was made for what is found
        self._lay_out(work)

    def update(self, work: Work, indices: list[int], sources: list[Place]) -> None:
        """Rewrite what differs in the table, and make room for what kernels find."""
        if sources:
            self._programs = _programs(work)
        self._kind_of[indices] = -1
        self._dtypes = b""
        self._lay_out(work)

    def _lay_out(self, work: Work) -> None:
        self._shapes, self._flags = self._programs.flat, layout.flags_of(work)
        self._table = self._on_device.write(work, self._programs)
        self._spans = self._table.spans.numel()
        self._halves = self._table.halves.numel() // int(w.HALF_SIZE)
        self._stretches = self._table.stretches.numel() // int(w.PART_SIZE)
        sizes = work.tensors[:, [Column.COUNT, Column.UNIT]].tobytes()
        if sizes != self._sizes:  # also where the totals are equal: parts may not be written again
            self._sizes = sizes
            units = self._table.units.numel() // int(w.UNIT_SIZE)
            self.measured, self._measured = layout.make_measured(
                int(work.chunks.sum()), self.device
            )
            self.decided, self._decided = layout.make_decided(work, units)
        rooms = (self.measured, *self._measured[-2:], self.decided, self._no_scale, self._no_inf)
        uploads = (self._gradients.memory, self._numbers.memory)
        self.uses = StreamUse(self.device, [*self._table, *rooms, *uploads, *work.memory])

    def __call__(self, work: Work) -> Outcome:
        """One step over the gradients in ``work.addresses``; nothing waits for the device.

        Raises:
            RuntimeError: a kernel is missing while a CUDA graph is captured.
        """
        addresses = self._addresses(work)
        launches = self._launches(WHOLE_STEP)
        check_compiled(self.device, *((x.kernel, *x.constants) for x in launches))
        self._launch(launches, self._call(work, addresses))
        return self.outcome(work)

    def prepare(self, work: Work) -> w.Call:
        """What the host knows of this step, on the device."""
        return self._call(work, self._addresses(work))

    def run(self, call: w.Call, phases: int) -> None:
        """These phases of what was prepared."""
        self._launch(self._launches(phases), call)

    def _launches(self, phases: int) -> list[Launch]:
        kinds = tuple(word for kind in self._kinds for word in kind)
        launches = []
        if phases & MEASURE and self._flags & int(w.MEASURES) and self._halves:
            flags = self._flags if phases & PLAN else self._flags | int(w.ONLY_MEASURES)
            measured = (kinds, self._shapes, flags)
            registers = registers_of_measure(self._kinds)
            launches.append(Launch(measure_kernel, self._halves, measured, registers))
        elif phases & PLAN:
            programs = self._spans if self._flags & int(w.MEASURES) else 1
            launches.append(Launch(plan_kernel, programs, (self._shapes, self._flags)))
        if phases & APPLY and self._stretches:
            applied = (*self._rule, kinds, self._flags)
            launches.append(Launch(apply_kernel, self._stretches, applied))
        return launches

    def _launch(self, launches: list[Launch], call: w.Call) -> None:
        everything = (self._table, *call, self._state, self._measured, self._decided)
        applied = (self._table, call.gradients, self._decided)
        for kernel, programs, constants, most in launches:
            arguments = applied if kernel is apply_kernel else everything
            launch(kernel, programs, self.device, arguments, *constants, most_registers=most)

    def push(self, work: Work) -> None:
        """The caller's numbers, where kernels and captured graphs read them; room for captures."""
        self.uses.now()
        self._numbers.shared(self._caller(work))
        self._gradients.make_spares()

    def _caller(self, work: Work) -> NDArray[np.float64]:
        """The numbers of the caller: an outside GradScaler's, and the hyperparameters'."""
        scale, found = (self._number(x, y) for x, y in ((work.grad_scale, 1), (work.found_inf, 0)))
        values, is_override = work.hyper.values, work.hyper.is_override
        return np.concatenate(([scale, found], values.reshape(-1), is_override.reshape(-1)))

    def _number(self, value: Any, neutral: float) -> float:
        """A number on the host; the neutral one for a tensor, which the kernels read themselves."""
        return neutral if self._is_read_there(value) else float(value)

    def _is_read_there(self, value: Any) -> bool:
        """A tensor of a GPU: the host would have to wait for it. On the CPU either will do."""
        return isinstance(value, Tensor) and value.device.type == self.device.type

    def _tensor(self, value: Any, neutral: Tensor) -> Tensor:
        if not self._is_read_there(value):
            return neutral
        return value.detach().reshape(1).to(self.device, torch.float32, non_blocking=True)

    def _call(self, work: Work, addresses: NDArray[np.int64]) -> w.Call:
        """What the host knows of this step, on the device."""
        self.uses.now()
        scale_tensor = self._tensor(work.grad_scale, self._no_scale)
        found_tensor = self._tensor(work.found_inf, self._no_inf)
        numbers = self._caller(work)
        is_fixed = is_capturing(self.device)
        find = self._gradients.fixed if is_fixed else self._gradients.shared
        return w.Call(find(addresses), self._numbers.shared(numbers), scale_tensor, found_tensor)

    def _addresses(self, work: Work) -> NDArray[np.int64]:
        """Where each gradient is, and of what kind its tensor is; kinds are listed as they come."""
        dtypes = work.addresses[:, 1].tobytes()
        if dtypes != self._dtypes:
            self._dtypes, self._kinds_now = dtypes, self._kinds_of_gradients(work)
        addresses = work.addresses.copy()
        addresses[:, 1] = self._kinds_now
        return addresses.reshape(-1)

    def _kinds_of_gradients(self, work: Work) -> NDArray[np.int64]:
        """The kind of each tensor with a gradient; of the others as words.GRADIENT_KIND says."""
        dtypes = work.addresses[:, 1]
        present = np.flatnonzero((dtypes >= 0) | self._averaged)
        kinds = self._kind_of[present, dtypes[present]]
        for index in present[kinds < 0].tolist():
            number = self._kinds.setdefault(kind_of(work, index), len(self._kinds))
            self._kind_of[index, dtypes[index]] = number
        found = np.full(len(dtypes), -1, dtype=np.int64)
        kinds = self._kind_of[present, dtypes[present]]
        found[present] = np.where(dtypes[present] >= 0, kinds, -2 - kinds)
        return found

    def outcome(self, work: Work) -> Outcome:
        """On a CPU, what was decided; on a device nobody knows yet."""
        words = work.state.words
        if not self.knows or self._decided.words[int(w.PROCEED)] == int(w.PROCEEDS):
            work.increment_versions()
        if not self.knows:
            return UNKNOWN
        return Outcome(int(words[Field.ERROR]), int(words[Field.STEP]))


def _programs(work: Work) -> shapes.Programs:
    return shapes.arrange(work.hyper.programs, work.rule, work.groups, work.input)
