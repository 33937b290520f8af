"""What is asked of a device, as a rule without waiting: copies in order, how far it has come."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from torch import Tensor

from lrfused.device.graph_capture import is_capturing


class Mark(Protocol):
    """A place in the queue."""

    def query(self) -> bool:
        """The device has come past it; asking does not wait."""


class DeviceQueue:
    """The current stream of a device. Tests have another one, which runs when it is told to."""

    def __init__(self, device: torch.device):
        self.device = device

    def room(self, size: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host that the device reads and writes by itself."""
        return torch.zeros(size, dtype=dtype, device="cpu", pin_memory=True)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy as soon as the device gets there; neither may be touched before."""
        target.copy_(source, non_blocking=True)

    def mark(self) -> Mark:
        """The present end of the queue."""
        stream = torch.get_device_module(self.device).current_stream(self.device)
        return stream.record_event()

    def is_capturing(self) -> bool:
        """What is asked now becomes part of a graph; the device must not be asked how far it is."""
        return is_capturing(self.device)

    def finish(self) -> None:
        """Wait for everything that the device has to do, on any stream: for what went wrong."""
        torch.get_device_module(self.device).synchronize(self.device)

    @contextmanager
    def beside_capture(self, after: Mark | None = None) -> Iterator[None]:
        """On a stream that no graph records, behind a mark that no graph has.

        Neither memory nor how far the device is can be asked for until the capture has ended.
        """
        while True:  # torch hands out the same few streams again and again
            stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                if not torch.cuda.is_current_stream_capturing():
                    if after is not None:
                        stream.wait_event(cast(torch.cuda.Event, after))
                    yield
                    return
