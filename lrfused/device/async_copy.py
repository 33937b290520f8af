"""Asynchronous copies on a device's current stream, and events that say how far it has come."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from torch import Tensor

from lrfused.device.graph_capture import is_capturing


class Mark(Protocol):
    """An event that was recorded on the stream."""

    def query(self) -> bool:
        """Whether the device has reached it; does not wait."""


class DeviceQueue:
    """The current stream of a device. Tests replace it by one that runs on demand."""

    def __init__(self, device: torch.device):
        self.device = device

    def room(self, size: int, dtype: torch.dtype) -> Tensor:
        """Pinned host memory, which the device can read and write asynchronously."""
        return torch.zeros(size, dtype=dtype, device="cpu", pin_memory=True)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Enqueue a copy; neither tensor may be touched until the device has made it."""
        target.copy_(source, non_blocking=True)

    def mark(self) -> Mark:
        """Record an event at the present end of the stream."""
        stream = torch.get_device_module(self.device).current_stream(self.device)
        return stream.record_event()

    def is_capturing(self) -> bool:
        """Whether a graph records the stream: it takes in copies, and no event can be queried."""
        return is_capturing(self.device)

    def finish(self) -> None:
        """Synchronize with all streams of the device; only to recover from an error."""
        torch.get_device_module(self.device).synchronize(self.device)

    @contextmanager
    def beside_capture(self, after: Mark | None = None) -> Iterator[None]:
        """Use a stream that no graph records, after an event that was recorded outside of graphs.

        Until the capture has ended, no memory can be allocated and no event queried.
        """
        while True:  # torch's streams come from a small pool, so this may be a capturing one
            stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                if not torch.cuda.is_current_stream_capturing():
                    if after is not None:
                        stream.wait_event(cast(torch.cuda.Event, after))
                    yield
                    return
