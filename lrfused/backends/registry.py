"""The list of backends, and the choice among them: the argument, LRFUSED_BACKEND, "auto"."""

import os
from collections.abc import Iterable
from typing import Any

import torch

from lrfused.backends.cpu.backend import CpuBackend
from lrfused.backends.cuda.backend import CudaBackend
from lrfused.backends.protocol import Backend
from lrfused.backends.reference.backend import ReferenceBackend
from lrfused.backends.triton.backend import TritonBackend
from lrfused.device import discovery

VARIABLE = "LRFUSED_BACKEND"
FALLBACK = "reference"
# Of the backends with a device's type in their auto_device_types, "auto" prefers the last one here.
BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        ReferenceBackend(),
        CpuBackend(),
        TritonBackend(),
        CudaBackend(),
    )
}

Choice = str | dict[str, str]  # a name or "auto"; or of each device type


# The argument


def checked(backend: Any) -> Choice:
    """Validate the constructor's argument; LRFUSED_BACKEND, where it is set, replaces "auto".

    Raises:
        TypeError: it is neither a string nor a dictionary.
        ValueError: a name or a device type is not known, or the two do not fit.
        RuntimeError: a backend that is named is not available.
    """
    if isinstance(backend, dict):
        for device_type, name in backend.items():
            _check_pair(device_type, name)
    elif not isinstance(backend, str):
        raise TypeError(f"backend: must be a string or a dict, got {type(backend).__name__}")
    else:
        _check_name("backend", backend)
        if backend == "auto":
            backend = os.environ.get(VARIABLE) or "auto"
            _check_name(VARIABLE, backend)
    return dict(backend) if isinstance(backend, dict) else backend


def _check_name(where: str, name: Any) -> None:
    names = ("auto", *BACKENDS)
    if name not in names:
        raise ValueError(f"{where}: must be one of {names}, got {name!r}")
    reason = None if name == "auto" else BACKENDS[name].why_unavailable()
    if reason is not None:
        raise RuntimeError(f"{where}: {name!r} is not available: {reason}")


def _check_pair(device_type: Any, name: Any) -> None:
    try:
        known = torch.device(device_type).type == device_type
    except (RuntimeError, TypeError):
        known = False
    if not known:
        raise ValueError(
            f"backend: a key must be a device type such as 'cuda', got {device_type!r}"
        )
    where = f"backend[{device_type!r}]"
    _check_name(where, name)
    reason = None if name == "auto" else BACKENDS[name].why_not_type(device_type)
    if reason is not None:
        raise ValueError(f"{where}: {name!r} {reason}")


# The choice


def choose(choice: Choice, device: torch.device) -> Backend:
    """The backend that steps the tensors of a device; see `choose_for_all`."""
    return choose_for_all(choice, [device])


def choose_for_all(choice: Choice, devices: Iterable[torch.device]) -> Backend:
    """The backend of parameters that are stepped together, perhaps on several devices.

    "auto" takes on the CPU the C++ kernels, on NVIDIA GPUs the CUDA kernels before the Triton
    ones (which have to be compiled at the first step; which are faster was not measured yet), on
    other GPUs the Triton ones; where these are not there, do not take every device, or the devices
    are of different types, the reference.

    Raises:
        RuntimeError: the one that was asked for is not available.
        ValueError: it does not take one of the devices, or devices of different types.
    """
    devices = sorted(set(devices), key=str)
    types = sorted({device.type for device in devices})
    asked = {choice if isinstance(choice, str) else choice.get(t, "auto") for t in types}
    if len(types) > 1 and not asked <= {"auto", FALLBACK}:
        raise ValueError(
            f"backend: {choice!r} cannot step parameters on devices of different types together "
            f"({', '.join(map(str, devices))}); use 'auto' or 'reference', or an optimizer a type"
        )
    name = asked.pop() if len(types) == 1 else FALLBACK
    if name == "auto":
        name = _preferred(types[0], devices)
    _check_name("backend", name)
    for device in devices:
        reason = BACKENDS[name].why_not_on(device)
        if reason is not None:
            raise ValueError(f"backend: {name!r} does not take parameters on {device}: {reason}")
    return BACKENDS[name]


def _preferred(device_type: str, devices: list[torch.device]) -> str:
    """The backend that "auto" takes for devices of one type."""
    considered = (b for b in reversed(BACKENDS.values()) if device_type in b.auto_device_types)
    return next((b.name for b in considered if _takes_all(b, devices)), FALLBACK)


def _takes_all(backend: Backend, devices: list[torch.device]) -> bool:
    if backend.why_unavailable() is not None:
        return False
    return all(backend.why_not_on(device) is None for device in devices)


def chosen_by_device() -> dict[str, str]:
    """The backend that "auto" takes, for each device of this machine."""
    return {str(d): _chosen(d) for d in (torch.device("cpu"), *discovery.gpus())}


def _chosen(device: torch.device) -> str:
    """Its name, or "none" and why: LRFUSED_BACKEND may name a backend that is not available."""
    try:
        return choose(checked("auto"), device).name
    except (RuntimeError, ValueError) as error:
        return f"none ({error})"
