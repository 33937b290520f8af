"""All that depends on the device: its name, when work is done, how much memory a step takes.

Workloads, providers and results do not know what they run on. The GPU is in ``gpu_device.py``.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import memory
import torch

Call = Callable[[], Any]


class Device(Protocol):
    """
    Members:
        name: what result files are called.
        place: where torch has its tensors.
        bandwidth_kernels: which of ``stream.py`` say what its memory can do.
        bandwidth_elements: float32 elements of their arrays, beyond any cache.
        shares_tensors: all providers of a case step the same parameters and gradients.
        seconds: how long a call takes until its work on the device is done.
        peak_extra_bytes: the most memory that a call holds at a time beyond what was held
            before; None where that cannot be measured.
        available_bytes: memory that can still be allocated; None if unknown.
        details: more that is worth keeping about a call, which ``prepare`` has to come before.
        describe: the device, for the result file.
        versions: of what only this device needs.
    """

    name: str
    place: torch.device
    bandwidth_kernels: tuple[str, ...]
    bandwidth_elements: int
    shares_tensors: bool

    def seconds(self, call: Call) -> float: ...
    def peak_extra_bytes(self, call: Call) -> int | None: ...
    def available_bytes(self) -> int | None: ...
    def details(self, call: Call, prepare: Call) -> dict[str, Any]: ...
    def describe(self) -> dict[str, Any]: ...
    def versions(self) -> dict[str, str]: ...


class Cpu:
    name = "cpu"
    place = torch.device("cpu")
    bandwidth_kernels: tuple[str, ...] = ("copy", "triad", "scale")
    bandwidth_elements = 2**26
    shares_tensors = False

    def seconds(self, call: Call) -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    def peak_extra_bytes(self, call: Call) -> int | None:
        return memory.peak_extra_bytes(call)

    def available_bytes(self) -> int | None:
        return memory.available_bytes()

    def details(self, call: Call, prepare: Call) -> dict[str, Any]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {}

    def versions(self) -> dict[str, str]:
        return {}
