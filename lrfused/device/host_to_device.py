"""Host numbers on the device: uploaded when they change, without waiting for the device.

While a CUDA graph is captured, a copy on its stream would become part of the graph and run again at
each replay, from memory that has changed since; so the copy runs on another stream.
"""

import time
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrfused.device.async_copy import DeviceQueue, Mark

PATIENCE = 10.0  # seconds that a copy on another stream may take during a capture
SPARES = 16  # tensors held ready for captures, until the next step outside of one

Numbers = NDArray[np.int64] | NDArray[np.float64]


class Upload:
    """A device array of fixed size; with ``fixes``, each graph can also have arrays of its own."""

    def __init__(
        self,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        queue: DeviceQueue | None = None,
        *,
        fixes: bool = False,
    ):
        self._queue = DeviceQueue(device) if queue is None else queue
        self._is_direct = queue is None and device.type == "cpu"
        self._tensor = torch.zeros(size, dtype=dtype, device=device)
        self._last: bytes | None = None  # as bytes: nan equals nan, -0.0 differs from 0.0
        self._in_use: deque[tuple[Mark, Tensor]] = deque()  # staging buffers, the oldest first
        # No memory can be allocated during a capture, neither the host's nor the device's.
        self._beside = [] if self._is_direct else [self._room() for _ in range(2)]
        self._fixes = fixes and not self._is_direct
        self._fixed: dict[bytes, Tensor] = {}  # by content
        self._spares: list[tuple[Mark, Tensor]] = []
        self._pending: list[Tensor] = []  # tensors of a copy that timed out and may still run
        self.make_spares()

    @property
    def memory(self) -> Tensor:
        """The tensor that ``shared`` fills; its address never changes."""
        return self._tensor

    def make_spares(self) -> None:
        """Top up the spare tensors for captures to come; does nothing during a capture.

        A spare is free once the device has reached its event: until then, kernels may still write
        to the memory that the allocator reused for it. After a copy that timed out this
        synchronizes with the device, once, because that copy may still run.
        """
        missing = SPARES - len(self._spares) if self._fixes else 0
        if not (missing or self._pending) or self._queue.is_capturing():
            return
        if self._pending:
            self._queue.finish()
            self._pending = []
        if missing:
            new = [torch.empty_like(self._tensor) for _ in range(missing)]
            mark = self._queue.mark()
            self._spares += [(mark, spare) for spare in new]

    def _room(self) -> Tensor:
        return self._queue.room(self._tensor.numel(), self._tensor.dtype)

    def shared(self, numbers: Numbers) -> Tensor:
        """Upload the numbers, if they changed, to the one tensor that all steps and graphs read."""
        self.make_spares()
        now = numbers.tobytes()
        if now == self._last:
            return self._tensor
        self._last = None  # an interrupt before the copy is enqueued leaves the content unknown
        if self._is_direct:
            self._tensor.copy_(torch.from_numpy(numbers))
        elif self._queue.is_capturing():
            with self._queue.beside_capture():
                self._copy_now(numbers, self._tensor)
        else:
            self._copy_in_order(numbers)
        self._last = now
        return self._tensor

    def fixed(self, numbers: Numbers) -> Tensor:
        """A tensor for a graph being captured; it keeps the numbers as long as this object lives.

        It is not in the graph's memory pool, where earlier kernels of the graph may overwrite it.

        Raises:
            RuntimeError: too many of them since the last step outside of a capture.
        """
        now = numbers.tobytes()
        if now not in self._fixed:
            if not self._spares:
                raise RuntimeError(
                    f"capture: steps with {SPARES} lists of gradients were captured since the "
                    "last step outside of a graph; that step, or push(), makes room for more: call "
                    "one of them between the captures"
                )
            mark, own = self._spares.pop()
            with self._queue.beside_capture(mark):
                self._copy_now(numbers, own)
            self._fixed[now] = own
        return self._fixed[now]

    def _copy_in_order(self, numbers: Numbers) -> None:
        """Enqueue on the current stream, after the kernels that still read the previous numbers."""
        if self._in_use and self._in_use[0][0].query():
            staging = self._in_use.popleft()[1]
        else:
            staging = self._room()  # the first copy, or the host is far ahead of the device
        staging.copy_(torch.from_numpy(numbers))
        self._queue.copy(self._tensor, staging)
        self._in_use.append((self._queue.mark(), staging))

    def _copy_now(self, numbers: Numbers, target: Tensor) -> None:
        """Copy, and return when the copy is complete.

        During a capture no event can be queried, so the numbers are also copied back, and the host
        polls its own memory until they have arrived.
        """
        if self._pending:
            raise RuntimeError(
                "capture: an earlier copy to the device did not end; take a step outside of a "
                "graph, or call push(), which waits for it"
            )
        there, back = self._beside
        self._pending = [target, there, back]
        there.copy_(torch.from_numpy(numbers))
        bits = there.view(torch.int64)
        back.view(torch.int64).copy_(~bits)
        self._queue.copy(target, there)
        self._queue.copy(back, target)
        end = time.monotonic() + PATIENCE
        while not torch.equal(back.view(torch.int64), bits):
            if time.monotonic() > end:
                raise RuntimeError(f"capture: a copy to the device did not end in {PATIENCE} s")
        self._pending = []
