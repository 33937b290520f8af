"""Choosing a backend: names, devices, LRFUSED_BACKEND, what is missing, what is not taken."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from interpreting import interpreted
from torch.nn import Parameter

import lrfused
from lrfused import native, versions
from lrfused.backends import registry

CPU, NVIDIA, INTEL = torch.device("cpu"), torch.device("cuda", 0), torch.device("xpu", 1)
SECOND = torch.device("cuda", 1)


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
        monkeypatch.setattr(registry, "interprets", lambda: "interpreted" in there)
        monkeypatch.setattr(registry, "gpus", lambda: list(devices))
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        properties = SimpleNamespace(has_fp64=fp64)
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: properties)

    return make


def parameter() -> Parameter:
    p = Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    return p


def backend_of(opt: lrfused.AdamW) -> str:
    """The backend that makes the next step."""
    opt.step()
    return opt._engine.table.backend


# "auto"


@pytest.mark.parametrize(
    ("there", "options", "device", "name"),
    [
        (["cpu", "triton", "interpreted"], {}, CPU, "cpu"),
        (["triton", "interpreted"], {}, CPU, "reference"),
        (["cuda"], {"emulated": True}, CPU, "reference"),
        (["cpu", "triton", "cuda"], {}, NVIDIA, "cuda"),
        (["cpu", "triton", "cuda"], {"capability": (7, 5)}, NVIDIA, "triton"),
        (["cpu", "triton"], {}, NVIDIA, "triton"),
        (["cpu", "cuda"], {"capability": (7, 5)}, NVIDIA, "reference"),
        (["cpu", "triton", "interpreted"], {}, NVIDIA, "reference"),
        (["cpu", "triton", "cuda"], {"emulated": True}, NVIDIA, "triton"),
        (["cpu", "triton", "cuda"], {"hip": "6.3"}, NVIDIA, "triton"),
        (["cpu", "cuda"], {"hip": "6.3"}, NVIDIA, "reference"),
        (["cpu", "triton", "cuda"], {}, INTEL, "triton"),
        (["cpu", "triton", "cuda"], {"fp64": False}, INTEL, "reference"),
        (["cpu", "cuda"], {}, INTEL, "reference"),
        (["cpu", "triton"], {}, torch.device("privateuseone"), "reference"),
    ],
)
def test_auto_chooses_by_device(machine, there, options, device, name):
    machine(there, [NVIDIA, INTEL], **options)
    assert registry.choose("auto", device) == name


def test_a_device_without_float64_is_refused(machine):
    machine(["cpu", "triton"], [NVIDIA])
    with pytest.raises(ValueError, match=r"'reference' does not take .* mps: mps has no float64"):
        registry.choose("auto", torch.device("mps"))


def test_auto_is_the_default_and_steps_on_the_cpu():
    assert backend_of(lrfused.AdamW([parameter()])) == "cpu"


# A name


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
    assert registry.why_missing("triton") == reason
    with pytest.raises(RuntimeError, match="'triton' is not available: " + re.escape(reason)):
        lrfused.AdamW([parameter()], backend="triton")
    assert registry.choose("auto", NVIDIA) == "reference"


def test_a_triton_that_does_not_take_the_kernels_is_missing(machine, monkeypatch):
    def interprets():
        raise AttributeError("no such thing in the language")

    machine(["triton"], [NVIDIA], triton="9.0")
    monkeypatch.setattr(registry, "interprets", interprets)
    assert registry.why_missing("triton") == (
        "Triton 9.0 does not take the kernels (AttributeError: no such thing in the language)"
    )
    assert registry.choose("auto", NVIDIA) == "reference"


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
    assert registry.choose("triton", CPU) == "triton"


def test_the_refusal_comes_before_anything_has_changed(machine):
    machine(["cpu", "triton"], [NVIDIA])
    p = parameter()
    opt = lrfused.AdamW([p], backend="triton")
    with pytest.raises(ValueError, match="'triton' does not take parameters on cpu"):
        opt.step()
    assert not opt.state and p.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("backend", ["gpu", "", "CPU", ["cpu"], 3, None])
def test_a_name_that_is_none(backend):
    with pytest.raises((TypeError, ValueError), match="backend: must be"):
        lrfused.AdamW([parameter()], backend=backend)


# A dictionary


def test_a_name_for_each_device_type(machine):
    machine(["cpu", "triton", "cuda"], [NVIDIA])
    choice = registry.checked({"cuda": "triton", "cpu": "reference"})
    assert registry.choose(choice, NVIDIA) == "triton"
    assert registry.choose(choice, CPU) == "reference"
    assert registry.choose(choice, INTEL) == "triton"  # not named: as "auto"
    assert backend_of(lrfused.AdamW([parameter()], backend={"cpu": "reference"})) == "reference"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"gpu": "cpu"}, "a key must be a device type such as 'cuda', got 'gpu'"),
        ({"cuda:0": "cuda"}, "a key must be a device type such as 'cuda', got 'cuda:0'"),
        ({3: "cuda"}, "a key must be a device type such as 'cuda', got 3"),
        ({"cpu": "fast"}, "backend.'cpu'.: must be one of .*, got 'fast'"),
        ({"cuda": "cpu"}, "backend.'cuda'.: 'cpu' takes cpu tensors"),
        ({"xpu": "cuda"}, "backend.'xpu'.: 'cuda' takes cuda and cpu tensors"),
    ],
)
def test_a_dictionary_that_cannot_be(machine, choice, message):
    machine(["cpu", "triton", "cuda"], [NVIDIA])
    with pytest.raises(ValueError, match=message):
        lrfused.AdamW([parameter()], backend=choice)


def test_the_dictionary_is_the_optimizers_own():
    choice = {"cpu": "reference"}
    opt = lrfused.AdamW([parameter()], backend=choice)
    choice["cpu"] = "cpu"
    assert backend_of(opt) == "reference"


# The environment


def test_the_environment_replaces_auto_and_nothing_else(monkeypatch):
    monkeypatch.setenv("LRFUSED_BACKEND", "reference")
    assert backend_of(lrfused.AdamW([parameter()])) == "reference"
    assert backend_of(lrfused.AdamW([parameter()], backend="cpu")) == "cpu"
    assert backend_of(lrfused.AdamW([parameter()], backend={"cpu": "cpu"})) == "cpu"


@pytest.mark.parametrize("value", ["", "auto"])
def test_an_environment_that_says_nothing(monkeypatch, value):
    monkeypatch.setenv("LRFUSED_BACKEND", value)
    assert backend_of(lrfused.AdamW([parameter()])) == "cpu"


def test_a_wrong_value_in_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("LRFUSED_BACKEND", "fastest")
    with pytest.raises(ValueError, match=r"LRFUSED_BACKEND: must be one of .*, got 'fastest'"):
        lrfused.AdamW([parameter()])
    lrfused.AdamW([parameter()], backend="cpu")


@interpreted
def test_the_environment_may_name_the_interpreted_backend(monkeypatch):
    monkeypatch.setenv("LRFUSED_BACKEND", "triton")
    assert backend_of(lrfused.AdamW([parameter()])) == "triton"


# Several devices


def test_several_devices_of_one_type_have_one_backend(machine, monkeypatch):
    machine(["cpu", "triton", "cuda"], [NVIDIA, SECOND])
    for choice, name in (
        ("auto", "cuda"),
        ("cuda", "cuda"),
        ("triton", "triton"),
        ({"cuda": "triton", "cpu": "cpu"}, "triton"),
        ({"cpu": "cpu"}, "cuda"),
        ("reference", "reference"),
    ):
        assert registry.choose_for_all(choice, [SECOND, NVIDIA, SECOND]) == name
    capabilities = {NVIDIA: (9, 0), SECOND: (7, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.get)
    assert registry.choose_for_all("auto", [NVIDIA, SECOND]) == "triton"
    with pytest.raises(ValueError, match="'cuda' does not take parameters on cuda:1: it was not"):
        registry.choose_for_all("cuda", [NVIDIA, SECOND])
    machine(["cpu", "cuda"], [NVIDIA, SECOND])
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.get)
    assert registry.choose_for_all("auto", [NVIDIA, SECOND]) == "reference"


def test_only_the_reference_steps_devices_of_several_types_together(machine):
    machine(["cpu", "triton", "cuda"], [NVIDIA])
    assert registry.choose_for_all("auto", [CPU, NVIDIA]) == "reference"
    assert registry.choose_for_all("reference", [CPU, NVIDIA]) == "reference"
    for choice in ("cuda", {"cuda": "cuda", "cpu": "cpu"}):
        with pytest.raises(ValueError, match=r"of different types together \(cpu, cuda:0\)"):
            registry.choose_for_all(choice, [NVIDIA, CPU])
    with pytest.raises(ValueError, match=r"'reference' does not take .* mps: mps has no float64"):
        registry.choose_for_all("auto", [CPU, torch.device("mps")])


# Imports


def test_importing_and_stepping_on_the_cpu_imports_no_triton():
    """(That torch imports it when it makes an optimizer is its own affair.)"""
    script = (
        "import sys, torch, lrfused\n"
        "assert 'triton' not in sys.modules, 'imported'\n"
        "p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)\n"
        "opt = lrfused.AdamW([p]); opt.step(); opt.metrics(); opt.state_dict()\n"
        "assert not [m for m in sys.modules if m.startswith('lrfused.backends.triton')], 'ours'\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
