"""What a backend is: where it runs, and how it is bound to the tensors of an optimizer.

A backend is a folder. Its `backend.py` has a subclass of `Backend`, of which `registry` lists an
instance; importing that file imports nothing that only the backend's own users need.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch

from lrfused.backends.work import Outcome, Place, Work


class Runner(Protocol):
    """Steps the one `Work` that it was bound to.

    Those of backends with ``reads_on_device`` also have ``push(work)``, which uploads the caller's
    numbers.

    Attributes:
        updates: it can be updated; one that cannot is bound anew when something changes.
    """

    updates: bool

    def __call__(self, work: Work) -> Outcome:
        """One step."""

    def update(self, work: Work, indices: list[int], sources: list[Place]) -> None:
        """Take the present entries at these indices, and the sources of these hyperparameters."""


class Backend(ABC):
    """One way to step parameters.

    Attributes:
        name: what users call it.
        device_types: the types of devices whose tensors it can take; None: all.
        auto_device_types: those for which "auto" considers it.
        reads_addresses: it finds gradients by ``work.addresses``, else by ``work.gradients``.
        reads_on_device: it reads an outside GradScaler's tensors on the device, so that nothing
            of a step waits for the host and a CUDA graph can capture it.
    """

    name: ClassVar[str]
    device_types: ClassVar[tuple[str, ...] | None] = None
    auto_device_types: ClassVar[tuple[str, ...]] = ()
    reads_addresses: ClassVar[bool] = True
    reads_on_device: ClassVar[bool] = False

    def why_unavailable(self) -> str | None:
        """Why it cannot be used on this machine at all; None if it can."""
        return None

    def why_not_on(self, device: torch.device) -> str | None:
        """Why it does not take a device's tensors, where it is available; None if it does."""
        if device.type == "mps":
            return "mps has no float64, in which a step is planned"
        reason = self.why_not_type(device.type)
        return None if reason is None else f"it {reason}"

    def why_not_type(self, device_type: str) -> str | None:
        """Which tensors it takes, if those of this type of device are not among them."""
        if self.device_types is None or device_type in self.device_types:
            return None
        return f"takes {' and '.join(self.device_types)} tensors"

    @abstractmethod
    def bind(self, work: Work, instruction_set: str) -> Runner:
        """The runner of this work: it has the addresses of the work's tensors, which stay.

        ``instruction_set`` is that of a CPU's kernels, or "auto"; other backends ignore it.
        """

    @abstractmethod
    def describe(self) -> str:
        """What `info()` says of it, where it is available."""
