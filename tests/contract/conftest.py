"""Every test of the contract that takes a backend runs over all of them.

Over Triton's with the slow tests: what they show is host Python, which all backends share, and the
interpreter took a third of the time of all tests here.
"""

from pathlib import Path

import pytest
from emulating import cuda, emulation  # noqa: F401 (fixtures)
from every_backend import backend  # noqa: F401 (a fixture)

from lrfused import native


@pytest.fixture(params=native.tensor_readers or ["none"])
def reader(request, monkeypatch):
    """Each way in which the walk can ask this torch where a tensor lies."""
    names = [name for name in native.tensor_readers if name == request.param]
    monkeypatch.setattr(native, "tensor_readers", names)
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = getattr(item, "callspec", None)
        is_here = Path(__file__).parent in item.path.parents
        if is_here and parameters and parameters.params.get("backend") == "triton":
            item.add_marker(pytest.mark.slow)
