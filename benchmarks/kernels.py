"""What a call makes the GPU do, by torch's profiler; nothing is seen on a CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

MEMORY = ("Memcpy", "Memset")


@dataclass(frozen=True)
class Launched:
    """Names of kernels and of copies in the order of their start; seconds in all of them."""

    kernels: list[str]
    copies: list[str]
    seconds: float


def launched(call: Callable[[], Any]) -> Launched:
    """Everything that ran on the device between the begin of a call and its end."""
    wait()
    with torch.profiler.profile() as profile:
        call()
        wait()
    ran = sorted(filter(_ran, profile.events() or []), key=lambda event: event.time_range.start)
    names = [event.name for event in ran]
    return Launched(
        [name for name in names if not name.startswith(MEMORY)],
        [name for name in names if name.startswith(MEMORY)],
        1e-6 * sum(event.device_time for event in ran),
    )


def _ran(event: Any) -> bool:
    """On the device, and not just a label over what ran there."""
    label = getattr(event, "is_user_annotation", False) or event.name.startswith("Optimizer.")
    return event.device_type == torch.autograd.DeviceType.CUDA and not label


def wait() -> None:
    """Until the device has nothing left to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
