"""An optimizer whose steps nobody knows the outcome of."""

import pytest
from lib.late_device import LateQueue, PosingBackend
from lib.rules_for_steps import rule  # noqa: F401 (a fixture)

from lrfused import native
from lrfused.device import graph_capture
from lrfused.engine import bind, counters, engine, rebind, slow_path


@pytest.fixture
def queue(monkeypatch):
    """What a step asks of the device; every optimizer of the test poses as one on a GPU."""
    if native.cpu is None:
        pytest.skip(f"no C++ backend: {native.why_not_cpu}")
    queue = LateQueue()
    monkeypatch.setattr(bind, "choose_for_all", lambda choice, devices: PosingBackend())
    monkeypatch.setattr(counters, "DeviceQueue", lambda device: queue)
    for module in (engine, rebind, slow_path, graph_capture):
        monkeypatch.setattr(module, "is_capturing", lambda device: queue.capturing)
    return queue
