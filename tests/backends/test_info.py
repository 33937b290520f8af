"""`info()` and `python -m lrfused`: what there is, and why the rest is not."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lrfused import native
from lrfused._version import __version__
from lrfused.backends import registry
from lrfused.backends.info import BackendInfo, info
from lrfused.backends.triton import backend as triton_backend
from lrfused.device import discovery

BACKENDS = ["reference", "cpu", "triton", "cuda"]


def pose(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    """Another version of a package."""
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__=version))


def test_this_checkout_has_its_cpp_module() -> None:
    assert native.why_not_cpu is None
    assert info()["cpu"].available


def test_names_versions_and_backends() -> None:
    found = info()
    assert list(found.backends) == BACKENDS
    text = str(found)
    versions_in_use = [__version__, sys.version.split()[0], torch.__version__, np.__version__]
    for word in [*versions_in_use, *BACKENDS]:
        assert word in text
    assert repr(found) == text


def test_cpu_shows_instruction_sets_and_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        detail = info()["cpu"].detail
    finally:
        torch.set_num_threads(before)
    assert "3 threads" in detail
    sets = native.cpu.instruction_sets()
    assert sets and all(name in detail for name in sets)


def test_what_is_chosen_for_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRFUSED_BACKEND", raising=False)
    assert info().chosen == {"cpu": "cpu"}
    assert "auto       cpu: cpu" in str(info())
    monkeypatch.setenv("LRFUSED_BACKEND", "reference")
    assert info().chosen == {"cpu": "reference"}
    monkeypatch.setenv("LRFUSED_BACKEND", "nonsense")
    assert "auto       cpu: none (LRFUSED_BACKEND: must be one of" in str(info())


@pytest.mark.parametrize("name", ["triton", "cuda"])
def test_a_missing_gpu_backend_says_why(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(native, "cuda", None)
    monkeypatch.setattr(native, "why_not_cuda", "no such thing")
    assert not info()[name].available
    assert ("no such thing" if name == "cuda" else "triton") in info()[name].detail


def test_triton_without_a_gpu_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pose(monkeypatch, "triton", "3.8.0")
    monkeypatch.setattr(triton_backend, "interprets", lambda: False)
    monkeypatch.setattr(discovery, "gpus", lambda: [])
    assert info()["triton"] == BackendInfo(False, "Triton 3.8.0 is there, but no GPU is seen")
    monkeypatch.setattr(discovery, "gpus", lambda: [torch.device("cuda", 3)])
    for backend in registry.BACKENDS.values():
        monkeypatch.setattr(type(backend), "why_not_on", lambda self, device: None)
    assert info()["triton"] == BackendInfo(True, "3.8.0, cuda:3")
    assert info().chosen["cuda:3"] in ("triton", "cuda")


def test_missing_module_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "cpu", None)
    monkeypatch.setattr(native, "why_not_cpu", "no compiler on this moon")
    assert not info()["cpu"].available
    assert "cpu        no: no compiler on this moon" in str(info())
    assert info()["reference"].available


def test_command_prints_the_same() -> None:
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # what it prints, too
    command = [sys.executable, "-m", "lrfused"]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"{info()}\n"
