"""The CUDA kernels as a backend."""

import torch

from lrfused import native
from lrfused.backends.cuda.step import CudaStep
from lrfused.backends.multi_device import make_step
from lrfused.backends.protocol import Backend, Runner
from lrfused.backends.work import Work
from lrfused.device import discovery


class CudaBackend(Backend):
    """CUDA kernels for NVIDIA GPUs; tests emulate them on CPU tensors."""

    name = "cuda"
    device_types = ("cuda", "cpu")
    auto_device_types = ("cuda",)
    reads_on_device = True

    def why_unavailable(self) -> str | None:
        """Why the CUDA module was not built or cannot be imported, or that there is no GPU."""
        if native.cuda is None:
            return native.why_not_cuda or "not built"
        if not native.cuda.emulated and not discovery.gpus():
            return f"built {built_for()}, but no GPU is seen"
        return None

    def why_not_on(self, device: torch.device) -> str | None:
        """The reasons of every backend; the vendor, and what the module was built for."""
        return super().why_not_on(device) or _why_not_on(device)

    def bind(self, work: Work, instruction_set: str) -> Runner:
        """The table in the memory of its device, or of several."""
        return make_step(CudaStep, work)

    def describe(self) -> str:
        """What the module was built for, and the GPUs; why not, for those that it does not take."""
        assert native.cuda is not None
        if native.cuda.emulated:
            return "emulated on the CPU"
        refused = [
            f"; {device}: {reason}"
            for device in discovery.gpus()
            if (reason := self.why_not_on(device))
        ]
        return f"{built_for()}; {discovery.described_gpus()}{''.join(refused)}"


def built_for() -> str:
    """The compute capabilities that the CUDA module has machine code for."""
    assert native.cuda is not None
    numbers = native.cuda.architectures()
    return "for compute capability " + ", ".join(f"{n // 10}.{n % 10}" for n in numbers)


def _why_not_on(device: torch.device) -> str | None:
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
