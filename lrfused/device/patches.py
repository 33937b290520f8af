"""Numbers on the device with a copy on the host, so that only what changed is uploaded."""

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrfused.device.async_copy import DeviceQueue, Event

Words = NDArray[np.int64]
APART = 128  # words of equal content that are uploaded rather than begin another copy


class Patched:
    """A device array of int64 words; another content is uploaded in the order of the stream.

    What runs on the stream before `write` still reads the content of before.
    """

    def __init__(self, device: torch.device, queue: DeviceQueue | None = None):
        self._device = device
        self._queue = DeviceQueue(device) if queue is None else queue
        self._is_direct = queue is None and device.type == "cpu"
        self._tensor = torch.zeros(0, dtype=torch.int64, device=device)
        self._known: Words | None = None  # None: unknown
        self._in_use: deque[tuple[Event, Tensor]] = deque()  # staging buffers, the oldest first
        self.uploaded = 0  # words, in the last `write`

    def room(self, size: int) -> Tensor:
        """The array, with room for so many words; another one if they do not fit."""
        if size > self._tensor.numel():
            room = size + size // 8  # so that a few more do not need another array
            self._tensor = torch.zeros(room, dtype=torch.int64, device=self._device)
            self._known = None
        return self._tensor

    def write(self, words: Words) -> Tensor:
        """Make these the content; returns that part of the array."""
        target = self.room(max(words.size, 1))[: max(words.size, 1)]  # so that there is an address
        ranges = _differences(self._known, words)
        self._known = None  # an interrupt before the end leaves the content unknown
        self._upload(words, ranges)
        self._known = words.copy()
        return target

    def _upload(self, words: Words, ranges: list[tuple[int, int]]) -> None:
        self.uploaded = sum(end - start for start, end in ranges)
        while self._in_use and self._in_use[0][0].query():
            self._in_use.popleft()
        for start, end in ranges:
            target, changed = self._tensor[start:end], torch.from_numpy(words[start:end].copy())
            if self._is_direct:
                target.copy_(changed)
                continue
            staging = self._queue.pinned(end - start, torch.int64)
            staging.copy_(changed)
            self._queue.copy(target, staging)
            self._in_use.append((self._queue.record_event(), staging))


def _differences(before: Words | None, now: Words) -> list[tuple[int, int]]:
    """Ranges of words that differ; those that are close are one."""
    if before is None:
        return [(0, now.size)] if now.size else []
    shared = min(before.size, now.size)
    places = np.flatnonzero(before[:shared] != now[:shared])
    places = np.concatenate((places, np.arange(shared, now.size)))
    if not places.size:
        return []
    ends = np.flatnonzero(np.diff(places) > APART)
    starts = np.concatenate(([0], ends + 1))
    ends = np.concatenate((ends, [places.size - 1]))
    return [(int(places[a]), int(places[b]) + 1) for a, b in zip(starts, ends, strict=True)]
