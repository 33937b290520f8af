"""The CUDA backend on CPU tensors: csrc/cuda compiled against the cuda_runtime.h of this folder."""

import sys

import pytest
import torch

from lrfused import native

from . import building


@pytest.fixture(scope="session")
def built(request):
    """The emulation, compiled when its sources are new."""
    if sys.platform != "linux":
        pytest.skip("fibers and named sections as Linux has them")
    return building.Emulation(building.build(request.config.cache.mkdir("cuda_emulated")))


@pytest.fixture
def cuda(built, monkeypatch, rng):
    """The emulation as the CUDA backend, in an order of blocks and threads of this test's own."""
    monkeypatch.setattr(native, "cuda", built.module)
    built.seed(int(rng.numpy.integers(2**63)))
    built.launches()
    yield built
    built.drop_barrier()
    built.fail()


@pytest.fixture(autouse=True)
def one_thread():
    """torch's threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
