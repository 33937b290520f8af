"""Numbers of the host on the device: uploaded when they change, without waiting for the device.

While a CUDA graph is captured, a copy on its stream would become part of the graph and be made
again at each replay, of memory that has changed since. Then another stream copies.
"""

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RING = 4  # staging buffers: as many steps the host may be ahead of the device
PATIENCE = 10.0  # seconds that a copy beside a captured stream may take

Numbers = NDArray[np.int64] | NDArray[np.float64]


def is_capturing(device: torch.device) -> bool:
    """The current stream of the device records a graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


class Upload:
    """An array of fixed size on the device."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device):
        self._device = device
        self._tensor = torch.zeros(size, dtype=dtype, device=device)
        self._last: Numbers | None = None
        self._turn = 0
        self._events: list[torch.Event | None] = [None] * RING
        pinned = device.type == "cuda"
        rooms = 0 if device.type == "cpu" else RING + 2
        self._staging = [torch.zeros(size, dtype=dtype, pin_memory=pinned) for _ in range(rooms)]

    def shared(self, numbers: Numbers) -> Tensor:
        """The one tensor that every step reads, captured or not; it holds the numbers."""
        if self._last is not None and np.array_equal(self._last, numbers, equal_nan=True):
            return self._tensor
        if is_capturing(self._device):
            self._copy_beside_capture(numbers, self._tensor)
        else:
            self._copy_in_order(numbers)
        self._last = numbers.copy()
        return self._tensor

    def fixed(self, numbers: Numbers) -> Tensor:
        """A tensor of its own, for a graph that is being captured."""
        own = torch.empty_like(self._tensor)
        self._copy_beside_capture(numbers, own)
        return own

    def _copy_in_order(self, numbers: Numbers) -> None:
        """On the current stream, after the kernels that still read the numbers before."""
        if self._device.type == "cpu":
            self._tensor.copy_(torch.from_numpy(numbers))
            return
        self._turn = (self._turn + 1) % RING
        event, staging = self._events[self._turn], self._staging[self._turn]
        if event is not None:
            event.synchronize()  # of the copy that used this buffer RING uploads ago
        staging.copy_(torch.from_numpy(numbers))
        self._tensor.copy_(staging, non_blocking=True)
        self._events[self._turn] = event = torch.Event(self._device.type)
        event.record()

    def _copy_beside_capture(self, numbers: Numbers, target: Tensor) -> None:
        """On a stream that is not captured; done when this returns.

        A capture forbids to ask the device whether it has finished, so the numbers are copied
        back, and the host looks at its own memory until they are there.
        """
        there, back = self._staging[RING:]
        there.copy_(torch.from_numpy(numbers))
        bits = there.view(torch.int64)
        back.view(torch.int64).copy_(~bits)
        with torch.cuda.stream(torch.cuda.Stream(self._device)):  # type: ignore[no-untyped-call]
            target.copy_(there, non_blocking=True)
            back.copy_(target, non_blocking=True)
        end = time.monotonic() + PATIENCE
        while not torch.equal(back.view(torch.int64), bits):
            if time.monotonic() > end:
                raise RuntimeError(f"capture: a copy to {self._device} did not end in {PATIENCE} s")
