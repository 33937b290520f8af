"""The CUDA backend: memory for ``lrfused._cuda``, which launches on the current stream."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrfused import native
from lrfused.backends.description import changes, description
from lrfused.backends.work import UNKNOWN, WHOLE_STEP, Outcome, Place, Work
from lrfused.device.graph_capture import is_capturing
from lrfused.device.host_to_device import Upload
from lrfused.device.patches import Patched
from lrfused.device.streams import StreamUse
from lrfused.state.device_state import Field

QUARTERS = 4  # of a chunk
MEASURED = 6  # numbers of each
WORD = 8  # bytes


class Call(NamedTuple):
    """The arguments of a step, and the tensors that some of them point to."""

    arguments: tuple[Any, ...]
    kept: tuple[Tensor | None, ...]


class CudaStep:
    """One table, ready to be stepped by two launches at most; ``multi_device.Step`` says how.

    CUDA graphs read this object's memory: it has to live as long as they do.
    """

    updates = True

    def __init__(self, work: Work, device: torch.device):
        assert native.cuda is not None
        self.device = device
        if is_capturing(self.device):
            raise RuntimeError(
                "capture: the optimizer's tables have to be built first; take a step before"
            )
        self.step = native.cuda.Step(*description(work))
        self._table = Patched(device)
        self._workspace = torch.zeros(0, dtype=torch.uint8, device=device)
        self._numbers = Upload(2 * work.hyper.values.size, torch.float64, self.device)
        # More gradients than a kernel's parameters can hold lie in a table on the device.
        self._gradients = None
        if len(work.entries) > native.cuda.parameter_capacity():
            self._gradients = Upload(len(work.entries), torch.int64, self.device, fixes=True)
        self._place(work)

    def update(self, work: Work, indices: list[int], sources: list[Place]) -> None:
        """Rewrite what differs in the table, in the order of the stream."""
        self.step.update(*changes(work, indices, sources))
        self._place(work)

    def _place(self, work: Work) -> None:
        if self.step.workspace_size > self._workspace.numel():
            size = self.step.workspace_size
            self._workspace = torch.zeros(size, dtype=torch.uint8, device=self.device)
        else:
            self._workspace.zero_()  # its parts may have moved
        table = self._table.room(self.step.table_size // WORD)
        content = self.step.place(table.data_ptr(), self._workspace.data_ptr())
        self._table.write(np.frombuffer(content, dtype=np.int64))
        measured, overflows = self.step.decided_place, self.step.overflows_place
        found = self._workspace[:measured].view(torch.float64).view(MEASURED, -1)
        self.measured = found[:, : QUARTERS * int(work.chunks.sum())]
        self.overflows = self._workspace[overflows : overflows + 4].view(torch.int32)
        self.decided = self._workspace[measured : self.step.decided_end]
        uploads = [upload.memory for upload in (self._numbers, self._gradients) if upload]
        self.uses = StreamUse(self.device, [table, self._workspace, *uploads, *work.memory])

    def __call__(self, work: Work) -> Outcome:
        """One step over the gradients in ``work.addresses``; nothing waits for the device.

        Raises:
            RuntimeError: a call of CUDA failed.
        """
        self.run(self.prepare(work), WHOLE_STEP)
        return self.outcome(work)

    def prepare(self, work: Work) -> Call:
        """What the host knows of this step, on the device."""
        stream = self.uses.now()
        values, is_override = self._upload(work)
        grad_scale, scale_tensor = self._outside(work.grad_scale, 1.0)
        found_inf, inf_tensor = self._outside(work.found_inf, 0.0)
        arguments = (
            work.addresses,
            self._gradient_table(work.addresses),
            values,
            is_override,
            grad_scale,
            0 if scale_tensor is None else scale_tensor.data_ptr(),
            found_inf != 0.0,
            0 if inf_tensor is None else inf_tensor.data_ptr(),
            self.device.index or 0,
            0 if stream is None else int(stream.cuda_stream),
        )
        return Call(arguments, (scale_tensor, inf_tensor))

    def run(self, call: Call, phases: int) -> None:
        """These phases of what was prepared, on the stream that was current then."""
        self.step.run(*call.arguments, phases)

    def push(self, work: Work) -> None:
        """The caller's numbers, where kernels and captured graphs read them; room for captures."""
        self.uses.now()
        self._upload(work)
        if self._gradients is not None:
            self._gradients.make_spares()

    def _upload(self, work: Work) -> tuple[int, int]:
        """Where they are: values, and which of them count."""
        values, is_override = work.hyper.values, work.hyper.is_override
        numbers = np.concatenate((values.reshape(-1), is_override.reshape(-1)))
        start = self._numbers.shared(numbers).data_ptr()
        return start, start + 8 * values.size

    def _gradient_table(self, addresses: np.ndarray) -> int:
        """Its address on the device; 0 where the kernels' parameters have room for it."""
        if self._gradients is None:
            return 0
        assert native.cuda is not None
        packed = native.cuda.packed(addresses)
        is_fixed = is_capturing(self.device)
        find = self._gradients.fixed if is_fixed else self._gradients.shared
        return find(packed).data_ptr()

    def _outside(self, value: Any, neutral: float) -> tuple[float, Tensor | None]:
        """What an outside GradScaler says: a number, or a float32 on the device."""
        # A number of the host's does not have to wait for the device.
        if isinstance(value, Tensor) and value.device.type == self.device.type:
            number = value.detach().reshape(1)
            return neutral, number.to(self.device, torch.float32, non_blocking=True)
        return float(value), None

    def outcome(self, work: Work) -> Outcome:
        """Emulated on a CPU, what was decided; on a device nobody knows yet."""
        work.increment_versions()
        if self.device.type != "cpu":
            return UNKNOWN
        words = work.state.words
        return Outcome(int(words[Field.ERROR]), int(words[Field.STEP]))
