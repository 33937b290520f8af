"""Triton's interpreter: chosen by a variable that Triton reads when it is imported."""

import os
import sys

import pytest
import torch

if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
    raise pytest.UsageError("TRITON_INTERPRET=1 must be set before triton is imported")
os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton")

from lrfused import build
from lrfused.triton import step as triton_step


@pytest.fixture
def triton_backend(monkeypatch):
    """The name under which an optimizer finds this backend while the test runs."""

    class Interpreted(triton_step.TritonStep):
        def __init__(self, work, instruction_set):
            super().__init__(work)

    monkeypatch.setattr(build, "CpuStep", Interpreted)
    return "cpu"


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that are launched, with their compile-time constants."""
    seen = []

    def launch(kernel, programs, device, arguments, *constants):
        seen.append((kernel.fn.__name__, constants))
        original(kernel, programs, device, arguments, *constants)

    original = triton_step.launch
    monkeypatch.setattr(triton_step, "launch", launch)
    return seen


@pytest.fixture(autouse=True)
def one_thread():
    """The interpreter's threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
