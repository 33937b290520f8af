"""The Triton kernels as a backend; Triton and the kernels are imported only when it is used."""

import torch

from lrfused import versions
from lrfused.backends.multi_device import make_step
from lrfused.backends.protocol import Backend, Runner
from lrfused.backends.work import Work
from lrfused.device import discovery


class TritonBackend(Backend):
    """Kernels compiled at the first step for any GPU; interpreted they take CPU tensors."""

    name = "triton"
    device_types = ("cuda", "xpu", "cpu")
    auto_device_types = ("cuda", "xpu")
    reads_on_device = True

    def why_unavailable(self) -> str | None:
        """Why this Triton cannot be used, or that there is no GPU."""
        reason = versions.why_not("triton")
        if reason is not None:
            return reason
        version = versions.installed("triton")
        try:
            interpreted = interprets()
        except Exception as error:  # a Triton that is newer than tested may be another language
            return f"Triton {version} does not take the kernels ({type(error).__name__}: {error})"
        if not interpreted and not discovery.gpus():
            return f"Triton {version} is there, but no GPU is seen"
        return None

    def why_not_on(self, device: torch.device) -> str | None:
        """The reasons of every backend; the interpreter, and GPUs without float64."""
        return super().why_not_on(device) or _why_not_on(device)

    def bind(self, work: Work, instruction_set: str) -> Runner:
        """The table in the memory of its device, or of several."""
        from lrfused.backends.triton.step import TritonStep

        return make_step(TritonStep, work)

    def describe(self) -> str:
        """Triton's version, and the GPUs or the interpreter."""
        where = "interpreted on the CPU" if interprets() else discovery.described_gpus()
        return f"{versions.described('triton', versions.installed('triton'))}, {where}"


def interprets() -> bool:
    """TRITON_INTERPRET=1 was set when Triton was imported: NumPy runs the kernels, on the CPU.

    Kernels are not even imported where Triton cannot be used.
    """
    if versions.why_not("triton") is not None:
        return False
    from lrfused.backends.triton.memory import INTERPRETED

    return bool(INTERPRETED.value)


def _why_not_on(device: torch.device) -> str | None:
    if (device.type == "cpu") != interprets():
        where = "is" if interprets() else "is not"
        return f"TRITON_INTERPRET=1 lets it take tensors of the CPU only, and it {where} set"
    if device.type == "xpu" and not torch.xpu.get_device_properties(device).has_fp64:
        return "this GPU has no float64, in which a step is planned"
    return None
