"""Numbers of the host on the device: uploaded when they change, without waiting for the device.

While a CUDA graph is captured, a copy on its stream would become part of the graph and be made
again at each replay, of memory that has changed since. Then another stream copies.
"""

import time
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrfused.device.async_copy import DeviceQueue, Mark

PATIENCE = 10.0  # seconds that a copy beside a captured stream may take
SPARES = 16  # tensors that captures may take before the next step outside of one

Numbers = NDArray[np.int64] | NDArray[np.float64]


class Upload:
    """An array of fixed size on the device; with ``fixes``, graphs have arrays of their own."""

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
        self._last: bytes | None = None  # so nan is as before, and -0.0 is not 0.0
        self._in_use: deque[tuple[Mark, Tensor]] = deque()  # by copies, the oldest first
        # While a graph is captured no memory can be had, neither the host's nor the device's.
        self._beside = [] if self._is_direct else [self._room() for _ in range(2)]
        self._fixes = fixes and not self._is_direct
        self._fixed: dict[bytes, Tensor] = {}  # by what they hold
        self._spares: list[tuple[Mark, Tensor]] = []
        self._pending: list[Tensor] = []  # memory of a copy that is not known to have ended
        self.make_spares()

    @property
    def memory(self) -> Tensor:
        """Where ``shared`` puts the numbers."""
        return self._tensor

    def make_spares(self) -> None:
        """Room for captures to come, if there is less than could be.

        Each is free from its mark on: before, kernels may still write what lay there. After a
        copy that was given up the device is waited for, once: it may arrive until then.
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
        """The one tensor that every step reads, captured or not; it holds the numbers."""
        self.make_spares()
        now = numbers.tobytes()
        if now == self._last:
            return self._tensor
        self._last = None  # until the copy is asked for: an interrupt may leave either
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
        """A tensor that holds them as long as this object lives, for a graph being captured.

        Not of the graph's own memory, which the graph may use for something else before.

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
        """On the current stream, after the kernels that still read the numbers before."""
        if self._in_use and self._in_use[0][0].query():
            staging = self._in_use.popleft()[1]
        else:
            staging = self._room()  # the host is far ahead, or this is the first
        staging.copy_(torch.from_numpy(numbers))
        self._queue.copy(self._tensor, staging)
        self._in_use.append((self._queue.mark(), staging))

    def _copy_now(self, numbers: Numbers, target: Tensor) -> None:
        """Done when this returns.

        A capture forbids to ask the device whether it has finished, so the numbers are copied
        back, and the host looks at its own memory until they are there.
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
