"""Tell torch's allocator which streams use a bound table's memory.

The caching allocator reuses freed memory in the order of the stream that it was allocated on; uses
on other streams have to be recorded.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lrfused.device.graph_capture import is_capturing


def current_stream(device: torch.device) -> Any:
    """The stream that kernels are launched on; None on a CPU."""
    if device.type == "cpu":
        return None
    return torch.get_device_module(device).current_stream(device)


class StreamUse:
    """Tensors that live as long as a bound table, and the streams that have used them."""

    def __init__(self, device: torch.device, tensors: Iterable[Tensor]):
        self._device, self._tensors = device, list(tensors)
        self._known: set[int] = set()  # streams by id that the allocator has been told of

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors, before the first use."""
        self._tensors += tensors

    def now(self) -> Any:
        """Record the current stream as a user of the tensors and return it; call before each use.

        Not during a capture: the optimizer keeps what a graph uses for as long as it lives.
        """
        stream = current_stream(self._device)
        if stream is None or stream.stream_id in self._known or is_capturing(self._device):
            return stream
        for tensor in self._tensors:
            tensor.record_stream(stream)
        self._known.add(stream.stream_id)
        return stream
