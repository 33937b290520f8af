"""Backends whose kernels are PTX, translated and run on the CPU, under the same host code.

`cuda-ptx` is what nvcc makes of csrc/cuda, `triton-ptx` what Triton makes of its kernels.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

ARCHITECTURE = "90"  # where no test says otherwise


class CudaPtx:
    """All kernels of csrc/cuda for one architecture, by their names."""

    def __init__(self, architecture: str):
        from ptx import build, machine

        self.libraries = [machine.load(p.read_text()) for p in build.cuda_ptx(architecture)]
        self._of = {name: one for one in self.libraries for name in one.parameters}
        self.errors: list[Exception] = []

    def launch(
        self, name: bytes, parameters: int, size: int, blocks: int, threads: int, dependent: bool
    ) -> bool:
        """Whether a kernel was well; ctypes lets no error through, so it is kept."""
        try:
            entry = name.decode()
            given = ctypes.string_at(parameters, size)
            self._of[entry].launch(entry, given, blocks, threads)
        except Exception as error:
            self.errors.append(error)
            return False
        return True


@pytest.fixture
def cuda_ptx(cuda, rng, request) -> Iterator[CudaPtx]:
    """The CUDA backend with PTX in the place of its kernels."""
    from ptx import machine

    architecture = getattr(request, "param", ARCHITECTURE)
    kernels = CudaPtx(architecture)
    machine.seed(int(rng.numpy.integers(2**63)))
    cuda.run_on(kernels.launch)
    yield kernels
    cuda.run_on()
    if kernels.errors:
        raise kernels.errors[0]


@pytest.fixture
def triton_ptx(monkeypatch, rng, request) -> Any:
    """The Triton backend with PTX in the place of its interpreted kernels."""
    from lrfused.backends.triton import step
    from ptx import machine, triton_ptx

    kernels = triton_ptx.TritonPtx(getattr(request, "param", ARCHITECTURE))
    machine.seed(int(rng.numpy.integers(2**63)))
    monkeypatch.setattr(step, "launch", kernels.launch)
    return kernels
