"""`info()` and `python -m lrfused`: what there is, and why the rest is not."""

import subprocess
import sys

import pytest
import torch

from lrfused import native
from lrfused._version import __version__
from lrfused.info import info

BACKENDS = ["reference", "cpu", "triton", "cuda"]


def test_this_checkout_has_its_cpp_module() -> None:
    assert native.why_not_cpu is None
    assert info()["cpu"].available


def test_names_versions_and_backends() -> None:
    found = info()
    assert list(found.backends) == BACKENDS
    text = str(found)
    for word in [__version__, sys.version.split()[0], torch.__version__, *BACKENDS]:
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


@pytest.mark.parametrize(
    ("name", "reason"),
    [("triton", "kernels are there, AdamW does not use them yet"), ("cuda", "not implemented yet")],
)
def test_later_backends_say_so(name: str, reason: str) -> None:
    assert not info()[name].available
    assert f"{name:<10} no: {reason}" in str(info())


def test_missing_module_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "cpu", None)
    monkeypatch.setattr(native, "why_not_cpu", "no compiler on this moon")
    assert not info()["cpu"].available
    assert "cpu        no: no compiler on this moon" in str(info())
    assert info()["reference"].available


def test_command_prints_the_same() -> None:
    run = subprocess.run([sys.executable, "-m", "lrfused"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"{info()}\n"
