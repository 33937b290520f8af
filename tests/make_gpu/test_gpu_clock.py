"""How time is taken on a GPU: what the profiler saw, a hidden lag, launches, bandwidth."""

import contextlib
from types import SimpleNamespace

import lib.benchmarks  # noqa: F401
import pytest
import torch

# isort: split
import gpu_device
import gpu_providers
import kernels
import stream
from data import Settings
from workloads import FORMS

from lrfused import native
from lrfused.backends.cuda.backend import CudaBackend


def event(name, begin, end, on_device=True, label=False):
    types = torch.autograd.DeviceType
    return SimpleNamespace(
        name=name,
        device_type=types.CUDA if on_device else types.CPU,
        time_range=SimpleNamespace(start=begin, end=end),
        is_user_annotation=label,
    )


@pytest.fixture
def profiled(monkeypatch):
    """What the profiler is to have seen, and what `launched` makes of it."""

    def found(*events):
        profile = SimpleNamespace(events=lambda: list(events))
        monkeypatch.setattr(torch.profiler, "profile", lambda: contextlib.nullcontext(profile))
        return kernels.launched(lambda: None)

    return found


def test_kernels_are_counted_and_labels_and_copies_are_not(profiled):
    found = profiled(
        event("apply", 30, 60),
        event("aten::mul", 0, 5, on_device=False),
        event("measure", 3, 23),
        event("Memcpy HtoD", 1, 2),
        event("Memset", 24, 29),
        event("Optimizer.step#AdamW.step", 0, 100),
        event("my region", 0, 100, label=True),
    )
    assert found.kernels == ["measure", "apply"]
    assert found.copies == ["Memcpy HtoD", "Memset"]
    assert found.seconds == pytest.approx(50e-6)


def test_the_wait_of_a_dependent_kernel_counts_once(profiled):
    """apply is there from 10 on and waits until measure ends at 23; plan lies within both."""
    found = profiled(event("measure", 3, 23), event("apply", 10, 60), event("plan", 20, 22))
    assert found.seconds == pytest.approx(57e-6)


def test_gaps_in_which_the_device_waits_for_the_host_do_not_count(profiled):
    found = profiled(event("a", 0, 10), event("b", 1000, 1010), event("c", 1010, 1011))
    assert found.seconds == pytest.approx(21e-6)


@pytest.mark.parametrize("lags", [False, True])
def test_the_lag_of_the_host_is_hidden_behind_a_sleep(monkeypatch, lags):
    """The clock begins when the device awakes; who takes longer than it sleeps is told."""
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("mark")

        def query(self):
            return lags

        def elapsed_time(self, end):
            return 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: done.append("sleep"), raising=False)
    device = gpu_device.HiddenLag()
    assert device.seconds(lambda: done.append("call")) == 2e-3
    assert done == ["sleep", "mark", "call", "mark"]
    assert device.details(lambda: None, lambda: None) == {"gpu": {"lag_was_hidden": not lags}}


def test_launches_are_as_a_variant_says_and_set_back(monkeypatch):
    """configure is told before each step and after it; without it the variant is not there."""
    told: list[object] = []

    def configure(**switches):
        told.append(switches)

    made = gpu_providers.VARIANTS["lrfused-cuda-serial-launch"]
    monkeypatch.setattr(CudaBackend, "why_unavailable", lambda self: None)
    monkeypatch.setattr(native, "cuda", SimpleNamespace())
    assert made.missing() == "not available: lrfused._cuda has no configure"
    monkeypatch.setattr(native, "cuda", SimpleNamespace(configure=configure))
    assert made.missing() is None
    pipeline = SimpleNamespace(step=lambda: told.append("step"), optimizer=None)
    monkeypatch.setattr(gpu_providers, "fused_whole", lambda *a, backend: pipeline)
    made.build([], FORMS["clip"], Settings()).step()
    assert told == [{"dependent_launch": False}, "step", {"dependent_launch": True}]


def test_bandwidth_is_that_of_a_copy():
    rates: stream.Rates = {}
    stream.Stream(gpu_device.DryGpu()).sample(rates)
    assert list(rates) == ["copy"]
    assert gpu_device.Gpu.bandwidth_elements * 4 == 2**30
