"""Versions: one definition, which everything else repeats; what is not supported is named."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from packaging.requirements import Requirement

from lrfused import versions
from lrfused.backends import registry
from lrfused.backends.info import info

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STUB = "__version__ = {!r}\n"


def floors() -> dict[str, set[str]]:
    """What pyproject.toml asks for, by name."""
    found: dict[str, set[str]] = {"python": {PROJECT["requires-python"]}}
    extras = PROJECT["optional-dependencies"].values()
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        found.setdefault(requirement.name, set()).add(str(requirement.specifier))
    return found


@pytest.mark.parametrize("name", versions.SUPPORTED)
def test_the_project_asks_for_the_same_floors(name: str) -> None:
    assert floors()[name] == {f">={versions.SUPPORTED[name].floor}"}


def test_what_runs_here_is_supported() -> None:
    assert versions.why_unusable() is None and info().problem is None
    for name in versions.SUPPORTED:
        title, floor, newest = versions.SUPPORTED[name]
        assert f"{title} {floor} to {newest}" in str(info())


@pytest.mark.parametrize(
    ("name", "version", "reason"),
    [
        ("triton", "3.2.0", "Triton 3.2.0 is not supported: 3.4 or newer is needed"),
        ("torch", "2.7.1+cu126", "torch 2.7.1+cu126 is not supported: 2.8 or newer is needed"),
        ("torch", "1.13.1", "torch 1.13.1 is not supported: 2.8 or newer is needed"),
        ("python", "3.9.18", "Python 3.9.18 is not supported: 3.10 or newer is needed"),
        ("triton", "3.4.0", None),
        ("triton", "3.10.0+gitabc", None),  # a number, not a text: newer than 3.9
        ("torch", "2.8.0a0+git1234", None),
        ("torch", "10.0", None),
        ("torch", "a build of my own", None),
    ],
)
def test_a_version_below_the_floor_is_named(name: str, version: str, reason: str | None) -> None:
    assert versions.why_not(name, version) == reason


def test_a_version_newer_than_tested_works_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = versions.SUPPORTED["torch"].newest
    monkeypatch.setattr(torch, "__version__", "2.99.0+cpu")
    assert info().torch == f"2.99.0+cpu (newer than tested, {newest})"
    assert info().problem is None and info()["reference"].available
    monkeypatch.setattr(torch, "__version__", f"{newest}.7+cpu")
    assert info().torch == f"{newest}.7+cpu"


@pytest.mark.parametrize("module", [torch, numpy], ids=lambda module: module.__name__)
def test_an_old_version_of_what_everything_needs(monkeypatch: pytest.MonkeyPatch, module) -> None:
    monkeypatch.setattr(module, "__version__", "1.9.0")
    title, floor, _ = versions.SUPPORTED[module.__name__]
    reason = f"{title} 1.9.0 is not supported: {floor} or newer is needed"
    assert versions.why_unusable() == reason == info().problem
    assert f"unusable   {reason}" in str(info()) and not info().backends


# Packages that are not there, too old, or broken, as a process of its own meets them


def run(code: str, folder: Path, **stubs: str | None) -> subprocess.CompletedProcess[str]:
    """Runs code, or the command, where packages of these versions come first, which are empty."""
    for name, text in stubs.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
    path = os.pathsep.join([str(folder), str(ROOT)])
    what = ["-c", code] if code else ["-m", "lrfused"]
    return subprocess.run(
        [sys.executable, *what],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("stubs", "reason"),
    [
        ({"torch": STUB.format("2.5.1")}, "torch 2.5.1 is not supported: 2.8 or newer"),
        ({"torch": "raise OSError('libc10.so')"}, "torch cannot be imported (libc10.so)"),
    ],
)
def test_without_a_torch_everything_says_why(tmp_path, stubs, reason) -> None:
    done = run("", tmp_path, **stubs)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"unusable   {reason}" in done.stdout
    for code in ("import lrfused; lrfused.AdamW([])", "from lrfused import schedules"):
        error = run(code, tmp_path).stderr.splitlines()[-1]
        assert error.startswith("ImportError: lrfused.") and reason in error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (STUB.format("3.2.0"), "Triton 3.2.0 is not supported: 3.4 or newer is needed"),
        ("raise OSError('libcuda.so')", "Triton cannot be imported (libcuda.so)"),
        ("", "Triton cannot be imported (module 'triton' has no attribute '__version__')"),
        (STUB.format("9.0.0"), "Triton 9.0.0 does not take the kernels (ModuleNotFoundError"),
    ],
)
def test_without_a_triton_the_command_says_why(tmp_path, text, reason) -> None:
    """Also under TRITON_INTERPRET=1, where the kernels would be asked what they are."""
    done = run("", tmp_path, triton=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"triton     no: {reason}" in done.stdout and "reference  yes" in done.stdout


def test_a_broken_installation_of_triton_leaves_the_others(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton cannot be imported" in registry.BACKENDS["triton"].why_unavailable()
    assert registry.choose("auto", torch.device("cpu")).name in ("cpu", "reference")
