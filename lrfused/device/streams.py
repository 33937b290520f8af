"""The streams that use a step's memory.

torch's allocator gives memory that was dropped to others as soon as the stream that it was made on
has come so far. Whoever uses it on another stream has to say so.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lrfused.device.graph_capture import is_capturing


def current_stream(device: torch.device) -> Any:
    """The stream that launches go to; None on a CPU."""
    if device.type == "cpu":
        return None
    return torch.get_device_module(device).current_stream(device)


class StreamUse:
    """Tensors that live as long as a table, and the streams that they were used on."""

    def __init__(self, device: torch.device, tensors: Iterable[Tensor]):
        self._device, self._tensors = device, list(tensors)
        self._known: set[int] = set()  # by id; what a tensor was made on needs not to be told

    def add(self, tensors: Iterable[Tensor]) -> None:
        """More of them, before the first use."""
        self._tensors += tensors

    def now(self) -> Any:
        """The current stream, which is about to use them; to be called before every use.

        What a captured graph uses is kept for as long as the optimizer lives.
        """
        stream = current_stream(self._device)
        if stream is None or stream.stream_id in self._known or is_capturing(self._device):
            return stream
        for tensor in self._tensors:
            tensor.record_stream(stream)
        self._known.add(stream.stream_id)
        return stream
