"""Asynchronous readback of a GPU's steps: the state is copied to the host and polled.

At most one copy is in flight, and nothing waits for it. A copy delays the device's next step, so
most steps go without one.
"""

from dataclasses import dataclass

from torch import Tensor

from lrfused.device.async_copy import DeviceQueue, Mark
from lrfused.state.device_state import DeviceState, Reading

# Steps between copies. The first copies come sooner, so that a short run's mirrors are refreshed,
# too: after 1, 2, 4, 8, 16, 32, 48, ... steps.
LONGEST_PAUSE = 16


@dataclass
class Seen:
    """The state after some step, and the schedules' inputs at that time by the tensor's id."""

    reading: Reading
    inputs: dict[int, float]


class Readback:
    """Copies of the state after some of the steps, as they arrive on the host."""

    def __init__(self, queue: DeviceQueue):
        self._queue = queue
        self._room: list[Tensor] = []
        self._inputs: list[Tensor] = []
        self._arrival: Mark | None = None
        self._is_wanted = True
        self._pause = self._steps_left = 1

    def ask(self, state: DeviceState, inputs: list[Tensor]) -> None:
        """Call after every step: enqueue a copy of the state, if one is due.

        While a copy is in flight none is due; one that became due meanwhile is enqueued by the
        first call after its arrival was seen.
        """
        self._steps_left -= 1
        if self._arrival is not None or self._steps_left > 0:
            return
        self._steps_left, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        tensors = [tensor.detach().reshape(-1) for tensor in (state.words, *inputs)]
        if [(t.numel(), t.dtype) for t in self._room] != [(t.numel(), t.dtype) for t in tensors]:
            self._room = [self._queue.room(t.numel(), t.dtype) for t in tensors]
        for room, tensor in zip(self._room, tensors, strict=True):
            self._queue.copy(room, tensor)
        self._inputs, self._is_wanted = list(inputs), True
        self._arrival = self._queue.mark()

    def look(self) -> Seen | None:
        """The state that has arrived since the last call; None during a capture."""
        if self._arrival is None or self._queue.is_capturing() or not self._arrival.query():
            return None
        self._arrival = None
        if not self._is_wanted:
            return None
        words, *values = self._room
        inputs = {id(x): float(y) for x, y in zip(self._inputs, values, strict=True)}
        return Seen(Reading(words.numpy().copy()), inputs)

    def forget(self) -> None:
        """Discard the copy in flight: the host knows a newer state."""
        self._is_wanted = False
