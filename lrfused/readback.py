"""What the host learns of a GPU's steps: copied on the way, looked at when it is there.

One copy is on its way at a time, and nobody waits for it.
"""

from dataclasses import dataclass

from torch import Tensor

from lrfused.device_queue import DeviceQueue, Mark
from lrfused.device_state import DeviceState, Reading


@dataclass
class Seen:
    """The words behind some step, and what the schedules' inputs held then, by tensor."""

    reading: Reading
    inputs: dict[int, float]


class Readback:
    """What the host knows of the steps that it asked for: as much as has arrived."""

    def __init__(self, queue: DeviceQueue):
        self._queue = queue
        self._room: list[Tensor] = []
        self._inputs: list[Tensor] = []
        self._arrival: Mark | None = None
        self._is_wanted = True

    def ask(self, state: DeviceState, inputs: list[Tensor]) -> None:
        """Have the state copied as the last step leaves it; not if a copy is on its way."""
        if self._arrival is not None:
            return
        tensors = [tensor.detach().reshape(-1) for tensor in (state.words, *inputs)]
        if [(t.numel(), t.dtype) for t in self._room] != [(t.numel(), t.dtype) for t in tensors]:
            self._room = [self._queue.room(t.numel(), t.dtype) for t in tensors]
        for room, tensor in zip(self._room, tensors, strict=True):
            self._queue.copy(room, tensor)
        self._inputs, self._is_wanted = list(inputs), True
        self._arrival = self._queue.mark()

    def look(self) -> Seen | None:
        """What has arrived since the last look; nothing while a graph is being captured."""
        if self._arrival is None or self._queue.is_capturing() or not self._arrival.query():
            return None
        self._arrival = None
        if not self._is_wanted:
            return None
        words, *values = self._room
        inputs = {id(x): float(y) for x, y in zip(self._inputs, values, strict=True)}
        return Seen(Reading(words.numpy().copy()), inputs)

    def forget(self) -> None:
        """What is on its way is older than what the host knows by now."""
        self._is_wanted = False
