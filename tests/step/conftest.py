"""What every test of the step starts from."""

import pytest
import torch
from emulating import cuda, emulation  # noqa: F401 (fixtures)
from every_backend import backend, kernels  # noqa: F401 (fixtures)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads would only wait for each other here; a test that wants some says so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
