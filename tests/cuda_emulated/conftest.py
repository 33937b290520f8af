"""The CUDA backend on CPU tensors: csrc/cuda compiled against the cuda_runtime.h of this folder."""

import pytest
import torch
from emulating import cuda, emulation  # noqa: F401 (fixtures)


@pytest.fixture(autouse=True)
def one_thread():
    """torch's threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
