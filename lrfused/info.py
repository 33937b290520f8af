"""Which backends there are, and why not the others."""

import platform
import sys
from dataclasses import dataclass

import torch

from lrfused import native
from lrfused._version import __version__


@dataclass(frozen=True)
class Backend:
    """One backend: whether it can be used, with what, or why not."""

    available: bool
    detail: str


@dataclass(frozen=True, repr=False)
class Info:
    """What `info()` found: text when printed; `info()["cpu"].available` asks for one backend."""

    version: str
    python: str
    torch: str
    backends: dict[str, Backend]

    def __getitem__(self, name: str) -> Backend:
        return self.backends[name]

    def __str__(self) -> str:
        rows = [("lrfused", self.version), ("python", self.python), ("torch", self.torch)]
        for name, backend in self.backends.items():
            rows.append((name, f"{'yes' if backend.available else 'no'}: {backend.detail}"))
        return "\n".join(f"{label:<10} {value}" for label, value in rows)

    __repr__ = __str__


def info() -> Info:
    """The versions in use and every backend, with the reason where one is missing.

    >>> info()["reference"].available
    True
    """
    not_yet = Backend(False, "not implemented yet")
    not_connected = Backend(False, "kernels are there, AdamW does not use them yet")
    return Info(
        version=__version__,
        python=f"{platform.python_version()}, {sys.platform} {platform.machine()}",
        torch=str(torch.__version__),
        backends={
            "reference": Backend(True, "plain torch operations"),
            "cpu": _cpu(),
            "triton": not_connected,
            "cuda": not_yet,
        },
    )


def _cpu() -> Backend:
    if native.cpu is None:
        return Backend(False, native.why_not_cpu or "")
    sets = ", ".join(native.cpu.instruction_sets())
    return Backend(True, f"{sets}; {torch.get_num_threads()} threads")
