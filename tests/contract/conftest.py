"""Every test of the contract that takes a backend or a kind of optimizer runs over all of them."""

import pytest
from lib.emulating import cuda, emulation  # noqa: F401 (fixtures)
from lib.every_backend import backend, cuda_ptx, triton_ptx  # noqa: F401 (a fixture)
from lib.optimizers import kind  # noqa: F401 (a fixture)

from lrfused import native


@pytest.fixture(params=native.tensor_readers or ["none"])
def reader(request, monkeypatch):
    """Each way in which the walk can ask this torch where a tensor lies."""
    names = [name for name in native.tensor_readers if name == request.param]
    monkeypatch.setattr(native, "tensor_readers", names)
    return request.param
