"""Versions, available backends, and why the others are not available."""

from __future__ import annotations  # this file is read by a Python that is too old, too

import platform
import sys
from dataclasses import dataclass

from lrfused import versions
from lrfused._version import __version__


@dataclass(frozen=True)
class BackendInfo:
    """Whether a backend is available, and its details or the reason why not."""

    available: bool
    detail: str


@dataclass(frozen=True, repr=False)
class Info:
    """The result of `info()`: prints as text; `info()["cpu"].available` asks for one backend.

    ``chosen`` is the backend that "auto" takes, by device. ``problem`` says why lrfused cannot be
    used here at all; then there are no backends.
    """

    version: str
    python: str
    torch: str
    numpy: str
    backends: dict[str, BackendInfo]
    chosen: dict[str, str]
    problem: str | None = None

    def __getitem__(self, name: str) -> BackendInfo:
        return self.backends[name]

    def __str__(self) -> str:
        rows = [("lrfused", self.version)]
        rows += [(name, getattr(self, name)) for name in ("python", "torch", "numpy")]
        for name, backend in self.backends.items():
            rows.append((name, f"{'yes' if backend.available else 'no'}: {backend.detail}"))
        rows.append(("auto", ", ".join(f"{on}: {name}" for on, name in self.chosen.items())))
        if self.problem:
            rows[-1] = ("unusable", self.problem)
        ranges = (f"{title} {floor} to {new}" for title, floor, new in versions.SUPPORTED.values())
        rows.append(("tested", ", ".join(ranges)))
        return "\n".join(f"{label:<10} {value}" for label, value in rows)

    __repr__ = __str__


def info() -> Info:
    """The versions in use, every backend with the reason where one is missing, and what is chosen.

    >>> info()["reference"].available
    True
    """
    problem = versions.why_unusable()
    backends, chosen = _found() if problem is None else ({}, {})
    return Info(
        version=__version__,
        python=f"{_version('python')}, {sys.platform} {platform.machine()}",
        torch=_version("torch"),
        numpy=_version("numpy"),
        backends=backends,
        chosen=chosen,
        problem=problem,
    )


def _found() -> tuple[dict[str, BackendInfo], dict[str, str]]:
    """Every backend, and what "auto" takes by device."""
    from lrfused.backends import registry  # which cannot be imported without a torch that is usable

    backends = {}
    for name, backend in registry.BACKENDS.items():
        reason = backend.why_unavailable()
        detail = backend.describe() if reason is None else reason
        backends[name] = BackendInfo(reason is None, detail)
    return backends, registry.chosen_by_device()


def _version(name: str) -> str:
    try:
        return versions.described(name, versions.installed(name))
    except ImportError as error:
        return f"cannot be imported ({error})"
