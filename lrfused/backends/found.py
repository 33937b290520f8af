"""Which backends there are, with what, or why not; what "auto" takes."""

from dataclasses import dataclass

import torch

from lrfused import native, versions
from lrfused.backends import registry


@dataclass(frozen=True)
class Backend:
    """One backend: whether it can be used, with what, or why not."""

    available: bool
    detail: str


def found() -> dict[str, Backend]:
    """Every backend."""
    return {name: _backend(name) for name in registry.NAMES}


def chosen() -> dict[str, str]:
    """The backend that "auto" takes, by device."""
    return {str(d): _chosen(d) for d in (torch.device("cpu"), *registry.gpus())}


def _backend(name: str) -> Backend:
    reason = registry.why_missing(name)
    return Backend(True, _DETAILS[name]()) if reason is None else Backend(False, reason)


def _chosen(device: torch.device) -> str:
    """Of a device, or why nothing can be: LRFUSED_BACKEND may name what is not there."""
    try:
        return registry.choose(registry.checked("auto"), device)
    except (RuntimeError, ValueError) as error:
        return f"none ({error})"


def _cpu() -> str:
    assert native.cpu is not None
    sets = ", ".join(native.cpu.instruction_sets())
    way = next(iter(native.tensor_readers), "none (every step takes the slow path)")
    return f"{sets}; {torch.get_num_threads()} threads; asks where tensors lie by: {way}"


def _triton() -> str:
    where = "interpreted on the CPU" if registry.interprets() else _seen()
    return f"{versions.described('triton', versions.installed('triton'))}, {where}"


def _cuda() -> str:
    assert native.cuda is not None
    if native.cuda.emulated:
        return "emulated on the CPU"
    missing = [
        f"; {device}: {reason}"
        for device in registry.gpus()
        if (reason := registry.why_not_on("cuda", device))
    ]
    return f"{registry.built_for()}; {_seen()}{''.join(missing)}"


def _seen() -> str:
    """The GPUs that torch sees."""
    names = [str(device) for device in registry.gpus()]
    return ", ".join(names) if names else "no GPU is seen"


_DETAILS = {
    "reference": lambda: "plain torch operations",
    "cpu": _cpu,
    "triton": _triton,
    "cuda": _cuda,
}
