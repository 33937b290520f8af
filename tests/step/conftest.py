"""What every test of the step starts from."""

import pytest
import torch
from interpreting import pytest_collection_modifyitems  # noqa: F401 (a hook)

from .helpers import BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend of this machine."""
    return request.param


@pytest.fixture(autouse=True)
def one_thread():
    """Threads would only wait for each other here; a test that wants some says so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
