"""What every test of the step starts from."""

import pytest
import torch

from .helpers import BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend of this machine."""
    return request.param


@pytest.fixture(autouse=True)
def threads_come_back():
    """A test may set torch's thread count; the next one does not notice."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
