"""Which backend steps what: "auto", a name, a dictionary, LRFUSED_BACKEND, several devices."""

import pytest
import torch
from lib.interpreting import interpreted

import lrfused
from lrfused.backends import registry

from .stepping import CPU, INTEL, NVIDIA, SECOND, backend_of, parameter

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
    assert registry.choose("auto", device).name == name


def test_a_device_without_float64_is_refused(machine):
    machine(["cpu", "triton"], [NVIDIA])
    with pytest.raises(ValueError, match=r"'reference' does not take .* mps: mps has no float64"):
        registry.choose("auto", torch.device("mps"))


def test_auto_is_the_default_and_steps_on_the_cpu():
    assert backend_of(lrfused.AdamW([parameter()])) == "cpu"


@pytest.mark.parametrize("backend", ["gpu", "", "CPU", ["cpu"], 3, None])
def test_a_name_that_is_none(backend):
    with pytest.raises((TypeError, ValueError), match="backend: must be"):
        lrfused.AdamW([parameter()], backend=backend)


# A dictionary


def test_a_name_for_each_device_type(machine):
    machine(["cpu", "triton", "cuda"], [NVIDIA])
    choice = registry.checked({"cuda": "triton", "cpu": "reference"})
    assert registry.choose(choice, NVIDIA).name == "triton"
    assert registry.choose(choice, CPU).name == "reference"
    assert registry.choose(choice, INTEL).name == "triton"  # not named: as "auto"
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
        assert registry.choose_for_all(choice, [SECOND, NVIDIA, SECOND]).name == name
    capabilities = {NVIDIA: (9, 0), SECOND: (7, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.get)
    assert registry.choose_for_all("auto", [NVIDIA, SECOND]).name == "triton"
    with pytest.raises(ValueError, match="'cuda' does not take parameters on cuda:1: it was not"):
        registry.choose_for_all("cuda", [NVIDIA, SECOND])
    machine(["cpu", "cuda"], [NVIDIA, SECOND])
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.get)
    assert registry.choose_for_all("auto", [NVIDIA, SECOND]).name == "reference"


def test_only_the_reference_steps_devices_of_several_types_together(machine):
    machine(["cpu", "triton", "cuda"], [NVIDIA])
    assert registry.choose_for_all("auto", [CPU, NVIDIA]).name == "reference"
    assert registry.choose_for_all("reference", [CPU, NVIDIA]).name == "reference"
    for choice in ("cuda", {"cuda": "cuda", "cpu": "cpu"}):
        with pytest.raises(ValueError, match=r"of different types together \(cpu, cuda:0\)"):
            registry.choose_for_all(choice, [NVIDIA, CPU])
    with pytest.raises(ValueError, match=r"'reference' does not take .* mps: mps has no float64"):
        registry.choose_for_all("auto", [CPU, torch.device("mps")])
