"""Memory bandwidth in the manner of STREAM, with the threads of the run, once in every round.

Source: McCalpin, STREAM: Sustainable Memory Bandwidth in High Performance Computers. Its rule is
kept: the bytes that the program names count, not what the caches fetch beside them. ``scale``
works in place as an optimizer does, so that nothing is fetched only to be overwritten.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from device import Device

Rates = dict[str, list[float]]


class Stream:
    """Three arrays, and the kernels that go over them."""

    def __init__(self, device: Device):
        self.device = device
        count, place = device.bandwidth_elements, device.place
        a, b = (torch.full((count,), value, device=place) for value in (0.0, 1.0))
        c = b if device.bandwidth_kernels == ("copy",) else torch.full_like(b, 2.0)
        array = a.numel() * a.element_size()
        kernels: dict[str, tuple[int, Callable[[], Any]]] = {
            "copy": (2 * array, lambda: a.copy_(b)),
            "triad": (3 * array, lambda: torch.add(b, c, alpha=3.0, out=a)),
            "scale": (2 * array, lambda: c.mul_(1.0)),
        }
        self.kernels = {name: kernels[name] for name in device.bandwidth_kernels}

    def sample(self, rates: Rates) -> None:
        """Add the GB/s of each kernel."""
        for name, (moved, kernel) in self.kernels.items():
            seconds = self.device.seconds(kernel)
            rates.setdefault(name, []).append(1e-9 * moved / seconds)


def bandwidth(rates: Rates) -> float:
    """GB/s of the fastest kernel."""
    return max(median(values) for values in rates.values())
