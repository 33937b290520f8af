"""The backends: their names, what each of them takes, whether it is there, and who steps what.

A runner is what steps one `Work`: a function of it that returns an `Outcome`. Those of GPUs also
have ``push(work)``, which uploads the caller's numbers.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch

from lrfused import native, versions
from lrfused.backends import reference
from lrfused.backends.cpu.step import CpuStep
from lrfused.backends.multi_device import make_step
from lrfused.backends.work import Outcome, Work
from lrfused.state.device_state import Field

NAMES = ("reference", "cpu", "triton", "cuda")
ON_GPUS = ("triton", "cuda")
VARIABLE = "LRFUSED_BACKEND"
# What "auto" tries, before the reference.
AUTO = {"cpu": ("cpu",), "cuda": ("cuda", "triton"), "xpu": ("triton",)}
# Where a backend may run; triton and cuda on the CPU only interpreted and emulated.
KINDS = {"cpu": ("cpu",), "triton": ("cuda", "xpu", "cpu"), "cuda": ("cuda", "cpu")}

Choice = str | dict[str, str]  # a name or "auto"; or of each device type
Runner = Callable[[Work], Outcome]


# The argument


def checked(backend: Any) -> Choice:
    """The constructor's argument; "auto" is replaced by what LRFUSED_BACKEND says.

    Raises:
        TypeError: it is neither a string nor a dictionary.
        ValueError: a name or a device type is not known, or the two do not fit.
        RuntimeError: a backend that is named is not available.
    """
    if isinstance(backend, dict):
        for kind, name in backend.items():
            _check_pair(kind, name)
    elif not isinstance(backend, str):
        raise TypeError(f"backend: must be a string or a dict, got {type(backend).__name__}")
    else:
        _check_name("backend", backend)
        if backend == "auto":
            backend = os.environ.get(VARIABLE) or "auto"
            _check_name(VARIABLE, backend)
    return dict(backend) if isinstance(backend, dict) else backend


def _check_name(where: str, name: Any) -> None:
    names = ("auto", *NAMES)
    if name not in names:
        raise ValueError(f"{where}: must be one of {names}, got {name!r}")
    reason = None if name == "auto" else why_missing(name)
    if reason is not None:
        raise RuntimeError(f"{where}: {name!r} is not available: {reason}")


def _check_pair(kind: Any, name: Any) -> None:
    try:
        known = torch.device(kind).type == kind
    except (RuntimeError, TypeError):
        known = False
    if not known:
        raise ValueError(f"backend: a key must be a device type such as 'cuda', got {kind!r}")
    _check_name(f"backend[{kind!r}]", name)
    if kind not in KINDS.get(name, (kind,)):
        raise ValueError(f"backend[{kind!r}]: {name!r} takes {' and '.join(KINDS[name])} tensors")


# What there is


def why_missing(name: str) -> str | None:
    """Why nothing on this machine can be stepped by a backend; None if it is there."""
    if name == "cpu" and native.cpu is None:
        return native.why_not_cpu or "not built"
    if name == "cuda":
        return _why_no_cuda()
    if name == "triton":
        return _why_no_triton()
    return None


def interprets() -> bool:
    """Triton's kernels run on the CPU, in NumPy: TRITON_INTERPRET=1 stood there at the import.

    Kernels are not even imported where Triton cannot be used.
    """
    if versions.why_not("triton") is not None:
        return False
    from lrfused.backends.triton.memory import INTERPRETED

    return bool(INTERPRETED.value)


def _why_no_triton() -> str | None:
    reason = versions.why_not("triton")
    if reason is not None:
        return reason
    version = versions.installed("triton")
    try:
        interpreted = interprets()
    except Exception as error:  # a Triton that is newer than tested may be another language
        return f"Triton {version} does not take the kernels ({type(error).__name__}: {error})"
    if not interpreted and not gpus():
        return f"Triton {version} is there, but no GPU is seen"
    return None


def _why_no_cuda() -> str | None:
    if native.cuda is None:
        return native.why_not_cuda or "not built"
    if not native.cuda.emulated and not gpus():
        return f"built {built_for()}, but no GPU is seen"
    return None


def built_for() -> str:
    """The chips that the CUDA module has machine code for."""
    assert native.cuda is not None
    numbers = native.cuda.architectures()
    return "for compute capability " + ", ".join(f"{n // 10}.{n % 10}" for n in numbers)


def gpus() -> list[torch.device]:
    """The GPUs that torch sees."""
    return [
        torch.device(kind, index)
        for kind, module in (("cuda", torch.cuda), ("xpu", torch.xpu))
        if module.is_available()
        for index in range(module.device_count())
    ]


def why_not_on(name: str, device: torch.device) -> str | None:
    """Why a backend that is there does not take a device's tensors; None if it does."""
    if device.type == "mps":
        return "mps has no float64, in which a step is planned"
    if device.type not in KINDS.get(name, (device.type,)):
        return f"it takes {' and '.join(KINDS[name])} tensors"
    if name == "triton":
        return _why_not_triton_on(device)
    if name == "cuda":
        return _why_not_cuda_on(device)
    return None


def _why_not_triton_on(device: torch.device) -> str | None:
    if (device.type == "cpu") != interprets():
        where = "is" if interprets() else "is not"
        return f"TRITON_INTERPRET=1 lets it take tensors of the CPU only, and it {where} set"
    if device.type == "xpu" and not torch.xpu.get_device_properties(device).has_fp64:
        return "this GPU has no float64, in which a step is planned"
    return None


def _why_not_cuda_on(device: torch.device) -> str | None:
    assert native.cuda is not None
    emulated = bool(native.cuda.emulated)
    if (device.type == "cpu") != emulated:
        return f"this build {'is' if emulated else 'is not'} emulated on the CPU"
    if emulated:
        return None
    if torch.version.hip:
        return "it takes NVIDIA GPUs"
    major, minor = torch.cuda.get_device_capability(device)
    if not native.cuda.supports(major, minor):
        number = f"{major}.{minor}"
        return (
            f"it was not built for compute capability {number}; install it with "
            f"LRFUSED_CUDA_ARCH_LIST={number}, where nvcc knows that, or use Triton"
        )
    return None


# Who steps what


def choose(choice: Choice, device: torch.device) -> str:
    """The name of the backend that steps the tensors of a device; see `choose_for_all`."""
    return choose_for_all(choice, [device])


def choose_for_all(choice: Choice, devices: Iterable[torch.device]) -> str:
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
    kinds = sorted({device.type for device in devices})
    asked = {choice if isinstance(choice, str) else choice.get(kind, "auto") for kind in kinds}
    if len(kinds) > 1 and not asked <= {"auto", "reference"}:
        raise ValueError(
            f"backend: {choice!r} cannot step parameters on devices of different types together "
            f"({', '.join(map(str, devices))}); use 'auto' or 'reference', or an optimizer a type"
        )
    name = asked.pop() if len(kinds) == 1 else "reference"
    if name == "auto":
        name = next((n for n in AUTO.get(kinds[0], ()) if _takes_all(n, devices)), "reference")
    _check_name("backend", name)
    for device in devices:
        reason = why_not_on(name, device)
        if reason is not None:
            raise ValueError(f"backend: {name!r} does not take parameters on {device}: {reason}")
    return name


def _takes_all(name: str, devices: list[torch.device]) -> bool:
    return why_missing(name) is None and all(why_not_on(name, d) is None for d in devices)


def run_reference(work: Work) -> Outcome:
    """The reference, as a runner."""
    reference.step(work)
    words = work.state.words
    return Outcome(int(words[Field.ERROR]), int(words[Field.STEP]))


def make_runner(name: str, work: Work, instruction_set: str) -> Runner:
    """What steps a table: addresses are in it, so another table takes another one."""
    if name == "cpu":
        return CpuStep(work, instruction_set)
    if name == "triton":
        from lrfused.backends.triton.step import TritonStep

        return make_step(TritonStep, work)
    if name == "cuda":
        from lrfused.backends.cuda.step import CudaStep

        return make_step(CudaStep, work)
    return run_reference
