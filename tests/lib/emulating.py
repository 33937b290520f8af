"""The CUDA backend on CPU tensors: csrc/cuda as g++ compiles it, for tests without a GPU."""

import functools
import os
from pathlib import Path

import pytest

from lib import emulation_build
from lrfused import native

VARIABLE = "LRFUSED_TEST_EMULATION"  # where a process that a test starts finds the module

emulated = pytest.mark.skipif(
    emulation_build.WHY_NOT is not None, reason=str(emulation_build.WHY_NOT)
)


@functools.cache
def _emulation(cache: Path) -> emulation_build.Emulation:
    return emulation_build.Emulation(emulation_build.build(cache))


@pytest.fixture(scope="session")
def emulation(request):
    """The emulation, compiled when its sources are new; one of a process, whoever asks for it."""
    if emulation_build.WHY_NOT is not None:
        pytest.skip(emulation_build.WHY_NOT)
    return _emulation(request.config.rootpath / ".pytest_cache" / "cuda_emulated")


@pytest.fixture
def cuda(emulation, monkeypatch, rng):
    """The emulation as the CUDA backend, in an order of blocks and threads of this test's own."""
    monkeypatch.setattr(native, "cuda", emulation.module)
    monkeypatch.setenv(VARIABLE, str(emulation.path))
    emulation.seed(int(rng.numpy.integers(2**63)))
    emulation.launches()
    yield emulation
    emulation.drop_barrier()
    emulation.fail()


def inherit() -> None:
    """Give this process, which a test has started, that test's CUDA backend."""
    if VARIABLE in os.environ:
        native.cuda = emulation_build.load(Path(os.environ[VARIABLE]))
