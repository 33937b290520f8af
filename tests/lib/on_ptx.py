"""Backends whose kernels are PTX, translated and run on the CPU, under the same host code.

`cuda-ptx` is what nvcc makes of csrc/cuda, `triton-ptx` what Triton makes of its kernels.
"""

import ctypes
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from torch import Tensor

ARCHITECTURE = "90"  # where no test says otherwise


class Kernels:
    """Translated kernels, and what is known of the memory that they may touch.

    Where races are looked for (``lib.weak_memory``), ``memory`` says which tensors there are.
    """

    def __init__(self) -> None:
        self.memory: Callable[[], Iterable[Tensor]] | None = None
        self.libraries: list[Any] = []

    def told(self) -> None:
        """Before a launch."""
        from ptx import machine

        if self.memory is not None:
            machine.allocations(self.memory())


class CudaPtx(Kernels):
    """All kernels of csrc/cuda for one architecture, by their names.

    Where ``overlaps`` is set, a launch waits for the one that may begin before it has ended, or
    for ``flush``.
    """

    def __init__(self, architecture: str):
        from ptx import build, machine

        super().__init__()
        self.libraries = [
            machine.load(path.read_text(), f"cuda-ptx sm_{architecture} {path.stem}")
            for path in build.cuda_ptx(architecture)
        ]
        self._of = {name: one for one in self.libraries for name in one.parameters}
        self.errors: list[Exception] = []
        self.overlaps = False

    def launch(
        self, name: bytes, parameters: int, size: int, blocks: int, threads: int, dependent: bool
    ) -> bool:
        """Whether a kernel was well; ctypes lets no error through, so it is kept."""
        try:
            entry = name.decode()
            given = ctypes.string_at(parameters, size)
            if not dependent:
                self.flush()
            self._of[entry].add(entry, given, blocks, threads)
            if dependent or not self.overlaps:
                self.flush()
        except Exception as error:
            self.errors.append(error)
            return False
        return True

    def flush(self) -> None:
        """What waits, runs."""
        from ptx import machine

        self.told()
        machine.run()


@pytest.fixture
def cuda_ptx(cuda, rng, request) -> Iterator[CudaPtx]:
    """The CUDA backend with PTX in the place of its kernels."""
    from ptx import build, machine

    if not build.has_nvcc():
        pytest.skip("no nvcc")
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
    from ptx import machine, triton_ptx

    from lrfused.backends.triton import step

    kernels = triton_ptx.TritonPtx(getattr(request, "param", ARCHITECTURE))
    machine.seed(int(rng.numpy.integers(2**63)))
    monkeypatch.setattr(step, "launch", kernels.launch)
    return kernels
