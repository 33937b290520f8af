"""Machines that have what a test says: modules, Triton, GPUs."""

from types import SimpleNamespace

import pytest
import torch

from lrfused import native, versions
from lrfused.backends.triton import backend as triton_backend
from lrfused.device import discovery


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("LRFUSED_BACKEND", raising=False)


@pytest.fixture
def machine(monkeypatch):
    """A machine with these backends and GPUs."""

    def make(
        there,
        devices=(),
        capability=(9, 0),
        hip=None,
        emulated=False,
        fp64=True,
        triton="3.7.1",
    ):
        def version(name):
            if "triton" not in there:
                raise ImportError("no Triton here")
            return triton

        module = SimpleNamespace(emulated=emulated, supports=lambda major, minor: major >= 8)
        monkeypatch.setattr(native, "cpu", native.cpu if "cpu" in there else None)
        monkeypatch.setattr(native, "why_not_cpu", "no compiler here")
        monkeypatch.setattr(native, "cuda", module if "cuda" in there else None)
        monkeypatch.setattr(native, "why_not_cuda", "no nvcc here")
        monkeypatch.setattr(versions, "installed", version)
        monkeypatch.setattr(triton_backend, "interprets", lambda: "interpreted" in there)
        monkeypatch.setattr(discovery, "gpus", lambda: list(devices))
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        properties = SimpleNamespace(has_fp64=fp64)
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: properties)

    return make
