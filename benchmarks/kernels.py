"""What a call makes the GPU do, by torch's profiler; nothing is seen on a CPU."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

MEMORY = ("Memcpy", "Memset")


@dataclass(frozen=True)
class Launched:
    """Names of kernels and of copies in the order of their start.

    ``seconds`` is how long at least one kernel was there: the union of their intervals. Copies are
    not in it, nor the gaps in which the GPU waits for the host. A kernel of a dependent launch
    begins early and waits for the one before it; that wait lies within the other's interval and
    counts once.
    """

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
    kernels = [event for event in ran if not event.name.startswith(MEMORY)]
    return Launched(
        [event.name for event in kernels],
        [event.name for event in ran if event.name.startswith(MEMORY)],
        1e-6 * covered((event.time_range.start, event.time_range.end) for event in kernels),
    )


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of their union; they come in the order of their begin."""
    length, reached = 0.0, float("-inf")
    for begin, end in intervals:
        length += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return length


def _ran(event: Any) -> bool:
    """On the device, and not just a label over what ran there."""
    label = getattr(event, "is_user_annotation", False) or event.name.startswith("Optimizer.")
    return event.device_type == torch.autograd.DeviceType.CUDA and not label


def wait() -> None:
    """Until the device has nothing left to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
