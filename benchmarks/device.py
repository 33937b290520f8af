"""All that depends on the device: its name, when work is done, how much memory a step takes.

A GPU is another class with these members (events for the time, the allocator's peak for the
memory); workloads, providers and results do not know what they run on.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import memory


class Device(Protocol):
    """
    Members:
        name: what result files are called.
        seconds: how long a call takes until its work on the device is done.
        peak_extra_bytes: the most memory that a call holds at a time beyond what was held
            before; None where that cannot be measured.
        available_bytes: memory that can still be allocated; None if unknown.
    """

    name: str

    def seconds(self, call: Callable[[], Any]) -> float: ...
    def peak_extra_bytes(self, call: Callable[[], Any]) -> int | None: ...
    def available_bytes(self) -> int | None: ...


class Cpu:
    name = "cpu"

    def seconds(self, call: Callable[[], Any]) -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    def peak_extra_bytes(self, call: Callable[[], Any]) -> int | None:
        return memory.peak_extra_bytes(call)

    def available_bytes(self) -> int | None:
        return memory.available_bytes()
