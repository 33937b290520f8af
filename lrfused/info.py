"""Which backends there are, and why not the others."""

import platform
import sys
from dataclasses import dataclass

import torch

from lrfused import backends, native
from lrfused._version import __version__


@dataclass(frozen=True)
class Backend:
    """One backend: whether it can be used, with what, or why not."""

    available: bool
    detail: str


@dataclass(frozen=True, repr=False)
class Info:
    """What `info()` found: text when printed; `info()["cpu"].available` asks for one backend.

    ``chosen`` is the backend that "auto" takes, by device.
    """

    version: str
    python: str
    torch: str
    backends: dict[str, Backend]
    chosen: dict[str, str]

    def __getitem__(self, name: str) -> Backend:
        return self.backends[name]

    def __str__(self) -> str:
        rows = [("lrfused", self.version), ("python", self.python), ("torch", self.torch)]
        for name, backend in self.backends.items():
            rows.append((name, f"{'yes' if backend.available else 'no'}: {backend.detail}"))
        rows.append(("auto", ", ".join(f"{on}: {name}" for on, name in self.chosen.items())))
        return "\n".join(f"{label:<10} {value}" for label, value in rows)

    __repr__ = __str__


def info() -> Info:
    """The versions in use, every backend with the reason where one is missing, and what is chosen.

    >>> info()["reference"].available
    True
    """
    return Info(
        version=__version__,
        python=f"{platform.python_version()}, {sys.platform} {platform.machine()}",
        torch=str(torch.__version__),
        backends={name: _backend(name) for name in backends.NAMES},
        chosen={str(d): _chosen(d) for d in (torch.device("cpu"), *backends.gpus())},
    )


def _backend(name: str) -> Backend:
    reason = backends.why_missing(name)
    return Backend(True, _DETAILS[name]()) if reason is None else Backend(False, reason)


def _chosen(device: torch.device) -> str:
    """Of a device, or why nothing can be: LRFUSED_BACKEND may name what is not there."""
    try:
        return backends.choose(backends.checked("auto"), device)
    except (RuntimeError, ValueError) as error:
        return f"none ({error})"


def _cpu() -> str:
    assert native.cpu is not None
    sets = ", ".join(native.cpu.instruction_sets())
    way = next(iter(native.tensor_readers), "none (every step takes the slow path)")
    return f"{sets}; {torch.get_num_threads()} threads; asks where tensors lie by: {way}"


def _triton() -> str:
    where = "interpreted on the CPU" if backends.interprets() else _seen()
    return f"{backends.triton_version()}, {where}"


def _cuda() -> str:
    assert native.cuda is not None
    if native.cuda.emulated:
        return "emulated on the CPU"
    missing = [
        f"; {device}: {reason}"
        for device in backends.gpus()
        if (reason := backends.why_not_on("cuda", device))
    ]
    return f"{backends.built_for()}; {_seen()}{''.join(missing)}"


def _seen() -> str:
    """The GPUs that torch sees."""
    names = [str(device) for device in backends.gpus()]
    return ", ".join(names) if names else "no GPU is seen"


_DETAILS = {
    "reference": lambda: "plain torch operations",
    "cpu": _cpu,
    "triton": _triton,
    "cuda": _cuda,
}
