"""What the host learns of a GPU's steps: copied on the way, looked at when it is there.

One copy is on its way at a time, and nobody waits for it. A copy keeps the device from starting the
next step at once, so most steps go without.
"""

from dataclasses import dataclass

from torch import Tensor

from lrfused.device.async_copy import DeviceQueue, Mark
from lrfused.state.device_state import DeviceState, Reading

# Steps from one copy to the next; the first ones follow each other sooner, so that a short run's
# mirrors follow, too: after 1, 2, 4, 8, 16, 32, 48, ... steps.
LONGEST_PAUSE = 16


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
        self._pause = self._steps_left = 1

    def ask(self, state: DeviceState, inputs: list[Tensor]) -> None:
        """After every step: have the state copied as it leaves it, if that is due by now.

        Not while a copy is on its way; then after the first step that finds it there.
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
