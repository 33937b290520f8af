"""Small work on one thread: torch's threads would only wait for each other."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """In every test of a folder whose conftest imports it; a test that wants more says so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
