"""The C++ kernels as a backend."""

import torch

from lrfused import native
from lrfused.backends.cpu.step import CpuStep
from lrfused.backends.protocol import Backend, Runner
from lrfused.backends.work import Work


class CpuBackend(Backend):
    """C++ kernels, the instruction set chosen at run time, in threads."""

    name = "cpu"
    device_types = ("cpu",)
    auto_device_types = ("cpu",)

    def why_unavailable(self) -> str | None:
        """Why the C++ module was not built or cannot be imported."""
        return None if native.cpu is not None else native.why_not_cpu or "not built"

    def bind(self, work: Work, instruction_set: str) -> Runner:
        """The table's pointers, handed to ``lrfused._cpu``."""
        return CpuStep(work, instruction_set)

    def describe(self) -> str:
        """Instruction sets, threads, and how the fast path's guard reads tensors."""
        assert native.cpu is not None
        sets = ", ".join(native.cpu.instruction_sets())
        way = next(iter(native.tensor_readers), "none (every step takes the slow path)")
        return f"{sets}; {torch.get_num_threads()} threads; asks where tensors lie by: {way}"
