"""Which backends there are, and why not the others."""

import importlib
import platform
import sys
from dataclasses import dataclass
from types import ModuleType

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
            detail = f": {backend.detail}" if backend.detail else ""
            rows.append((name, ("yes" if backend.available else "no") + detail))
        return "\n".join(f"{label:<10} {value}" for label, value in rows)

    __repr__ = __str__


def info() -> Info:
    """The versions in use and every backend, with the reason where one is missing.

    >>> info()["reference"].available
    True
    """
    torch, why_no_torch = _import_torch()
    not_yet = Backend(False, "not implemented yet")
    return Info(
        version=__version__,
        python=f"{platform.python_version()}, {sys.platform} {platform.machine()}",
        torch=str(torch.__version__) if torch else why_no_torch,
        backends={
            "reference": Backend(True, "") if torch else Backend(False, "needs torch"),
            "cpu": _cpu(torch),
            "triton": not_yet,
            "cuda": not_yet,
        },
    )


def _import_torch() -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module("torch"), ""
    except ImportError as error:
        return None, f"cannot be imported ({error})"


def _cpu(torch: ModuleType | None) -> Backend:
    if native.cpu is None:
        return Backend(False, native.why_not_cpu or "")
    if torch is None:
        return Backend(False, "needs torch")
    sets = ", ".join(native.cpu.instruction_sets())
    return Backend(True, f"{sets}; {torch.get_num_threads()} threads")
