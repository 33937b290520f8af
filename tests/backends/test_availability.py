"""What a backend is missing, which devices it does not take, and what it imports."""

import re
import subprocess
import sys

import pytest
import torch

import lrfused
from lrfused.backends import registry
from lrfused.backends.triton import backend as triton_backend

from .stepping import CPU, INTEL, NVIDIA, parameter

# A backend that is not available


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cpu", "no compiler here"),
        ("cuda", "no nvcc here"),
        ("triton", r"Triton cannot be imported \(no Triton here\)"),
    ],
)
def test_a_missing_backend_raises_and_nothing_takes_its_place(machine, monkeypatch, name, reason):
    machine([])
    with pytest.raises(RuntimeError, match=f"backend: '{name}' is not available: {reason}"):
        lrfused.AdamW([parameter()], backend=name)
    with pytest.raises(RuntimeError, match=f"backend.'cuda'.: '{name}' is not available: {reason}"):
        lrfused.AdamW([parameter()], backend={"cuda": name})
    monkeypatch.setenv("LRFUSED_BACKEND", name)
    with pytest.raises(RuntimeError, match=f"LRFUSED_BACKEND: '{name}' is not available: {reason}"):
        lrfused.AdamW([parameter()])


def test_triton_without_any_gpu_is_missing(machine):
    machine(["triton"])
    with pytest.raises(RuntimeError, match=r"Triton 3\.7\.1 is there, but no GPU is seen"):
        lrfused.AdamW([parameter()], backend="triton")


@pytest.mark.parametrize("version", ["2.3.1", "3.2.0", "3.3.1+git1234"])
def test_a_triton_that_is_too_old_is_named(machine, version):
    machine(["triton", "cpu"], [NVIDIA], triton=version)
    reason = f"Triton {version} is not supported: 3.4 or newer is needed"
    assert registry.BACKENDS["triton"].why_unavailable() == reason
    with pytest.raises(RuntimeError, match="'triton' is not available: " + re.escape(reason)):
        lrfused.AdamW([parameter()], backend="triton")
    assert registry.choose("auto", NVIDIA).name == "reference"


def test_a_triton_that_does_not_take_the_kernels_is_missing(machine, monkeypatch):
    def interprets():
        raise AttributeError("no such thing in the language")

    machine(["triton"], [NVIDIA], triton="9.0")
    monkeypatch.setattr(triton_backend, "interprets", interprets)
    assert registry.BACKENDS["triton"].why_unavailable() == (
        "Triton 9.0 does not take the kernels (AttributeError: no such thing in the language)"
    )
    assert registry.choose("auto", NVIDIA).name == "reference"


# A device that a backend does not take


@pytest.mark.parametrize(
    ("name", "options", "device", "reason"),
    [
        ("cpu", {}, NVIDIA, "it takes cpu tensors"),
        ("cuda", {}, CPU, "this build is not emulated on the CPU"),
        ("cuda", {"emulated": True}, NVIDIA, "this build is emulated on the CPU"),
        ("cuda", {}, INTEL, "it takes cuda and cpu tensors"),
        ("cuda", {"hip": "6.3"}, NVIDIA, "it takes NVIDIA GPUs"),
        (
            "cuda",
            {"capability": (6, 1)},
            NVIDIA,
            "it was not built for compute capability 6.1; install it with "
            "LRFUSED_CUDA_ARCH_LIST=6.1, where nvcc knows that, or use Triton",
        ),
        ("triton", {}, CPU, "TRITON_INTERPRET=1 lets .* of the CPU only, and it is not set"),
        ("triton", {"fp64": False}, INTEL, "this GPU has no float64"),
        ("triton", {}, torch.device("mps"), "mps has no float64"),
    ],
)
def test_a_backend_that_does_not_take_a_device_says_so(machine, name, options, device, reason):
    machine(["cpu", "triton", "cuda"], [NVIDIA, INTEL], **options)
    where = f"backend: '{name}' does not take parameters on {device}: {reason}"
    with pytest.raises(ValueError, match=where):
        registry.choose(name, device)
    with pytest.raises(ValueError, match=where):
        registry.choose_for_all(name, [device, device])


def test_interpreted_triton_does_not_take_a_gpu(machine):
    machine(["triton", "interpreted"], [NVIDIA])
    with pytest.raises(ValueError, match="of the CPU only, and it is set"):
        registry.choose("triton", NVIDIA)
    assert registry.choose("triton", CPU).name == "triton"


def test_the_refusal_comes_before_anything_has_changed(machine):
    machine(["cpu", "triton"], [NVIDIA])
    p = parameter()
    opt = lrfused.AdamW([p], backend="triton")
    with pytest.raises(ValueError, match="'triton' does not take parameters on cpu"):
        opt.step()
    assert not opt.state and p.tolist() == [1.0, 1.0, 1.0]


# Imports


def test_importing_and_stepping_on_the_cpu_imports_no_triton():
    """(That torch imports it when it makes an optimizer is its own affair.)"""
    script = (
        "import sys, torch, lrfused\n"
        "assert 'triton' not in sys.modules, 'imported'\n"
        "p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)\n"
        "opt = lrfused.AdamW([p]); opt.step(); opt.metrics(); opt.state_dict()\n"
        "ours = {m for m in sys.modules if m.startswith('lrfused.backends.triton.')}\n"
        "assert ours == {'lrfused.backends.triton.backend'}, ours\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
