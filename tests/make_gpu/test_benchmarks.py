"""The benchmark harness for a GPU, as far as a CPU can stand in for one."""

import contextlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lib.benchmarks import FEW, case_of, tiny  # noqa: F401

# isort: split
import bench
import figure
import gpu_device
import gpu_providers
import kernels
import records
import render
import result_files
import runner
import stream
import table
from data import Data, Settings
from gpu_providers import GPU_PROVIDERS, debiased
from providers import PROVIDERS
from workloads import FORMS, GPU_WORKLOADS

from lrfused import native
from lrfused.backends.cuda.backend import CudaBackend

DEVICE = gpu_device.DryGpu()
OWN, FUSED, FOREACH = (PROVIDERS[name] for name in ("lrfused", "fused", "foreach"))
BYTES = 47 * 4  # of the parameters of FEW


def run(*providers, rounds=2):
    found, _ = runner.run_case(
        case_of(), providers, rounds, stream.Stream(DEVICE), Settings(), lambda name: None
    )
    return found


# What is measured


def test_moments_in_float32_are_more_bytes():
    """bfloat16: p and g and p again in 2 bytes, m and v twice in 4; the clip g three times."""
    apex = GPU_PROVIDERS["apex"]
    assert apex.bytes_per_parameter(FORMS["step"], torch.bfloat16) == 3 * 2 + 4 * 4
    assert apex.bytes_per_parameter(FORMS["clip"], torch.bfloat16) == 6 * 2 + 4 * 4
    assert apex.bytes_per_parameter(FORMS["step"], torch.float32) == 28


@pytest.mark.parametrize("optimizer", ["sgd", "lion"])
def test_one_moment_is_fewer_bytes(optimizer):
    """p, g and m are read, p and m written; ours reads g once more, torch's clip does it thrice."""
    for name, wanted in (("lrfused-cuda", (20, 24, 24)), ("fused", (20, 32, 40))):
        provider = GPU_PROVIDERS[name]
        found = [provider.bytes_per_parameter(f, torch.float32, optimizer) for f in FORMS.values()]
        assert tuple(found) == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_sgd_and_lion_beside_torch(form, dtype):
    """Who has no such optimizer is left out; a wrong result of ours would be seen."""
    wrong = replace(OWN, name="lrfused-wrong", build=other_decay)
    for optimizer, torchs in (("sgd", "ok"), ("lion", "left out")):
        work = replace(FEW, optimizer=optimizer)
        found, _ = runner.run_case(
            case_of(form, dtype, work),
            (OWN, FUSED, FOREACH, wrong),
            1,
            stream.Stream(DEVICE),
            Settings(),
            lambda name: None,
        )
        states = {m["provider"]: m["status"] for m in found}
        assert states["lrfused"] == "ok" and states["foreach"] == "left out"
        if dtype == torch.float32:  # torch's fused SGD is wrong in bfloat16 on a CPU
            assert states["fused"] == torchs
            assert states["lrfused-wrong"] == "wrong"


def other_decay(params, form, settings):
    return OWN.build(params, form, replace(settings, weight_decay=0.2))


@pytest.mark.parametrize(
    ("name", "parameters"), [("gpt3", 1.3e9), ("llama-7b", 6.74e9), ("gpt2", 124.4e6)]
)
def test_models_have_their_size(name, parameters):
    assert GPU_WORKLOADS[name].parameters == pytest.approx(parameters, rel=0.02)
    assert f"{len(GPU_WORKLOADS[name].shapes)} tensors" in GPU_WORKLOADS[name].title


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
    stream.Stream(DEVICE).sample(rates)
    assert list(rates) == ["copy"]
    assert gpu_device.Gpu.bandwidth_elements * 4 == 2**30


def test_moments_that_are_kept_another_way():
    """optimi's are divided by the bias corrections, which were 1 - 0.9^3 and 1 - 0.5^3."""
    param, m, v = torch.nn.Parameter(torch.ones(2)), torch.tensor(3.0), torch.tensor(5.0)
    group = {"step": torch.tensor(3), "beta1": 0.9, "beta2": 0.5}
    state = {param: {"exp_avg": m / 0.271, "exp_avg_sq": v / 0.875}}
    found = debiased(SimpleNamespace(param_groups=[group], state=state), param)
    torch.testing.assert_close(found, (m, v))
    named = GPU_PROVIDERS["bitsandbytes"].moments
    state = {param: {"state1": m, "state2": v}}
    assert named(SimpleNamespace(state=state), param) == (m, v)


# Memory


def test_providers_share_parameters_and_gradients():
    """Each begins with the initial values."""
    made = Data(case_of(), Settings(), device=DEVICE)
    first = made.parameters()
    made.write_gradients(first, 0)
    with torch.no_grad():
        first[0].fill_(7.0)
    second = made.parameters()
    assert all(a is b and a.grad is b.grad for a, b in zip(first, second, strict=True))
    assert torch.equal(second[0].detach().view(-1), made.initial[:15].repeat(2)[:15])


def test_who_does_not_fit_beside_the_others_runs_alone(monkeypatch):
    """Two shared tensors, two moments for each, two temporaries."""
    providers = (FUSED, FOREACH, OWN)
    monkeypatch.setattr(gpu_device.DryGpu, "available_bytes", lambda self: 10 * BYTES)
    together = run(*providers)
    assert [m["status"] for m in together] == ["ok"] * 3 and not any("alone" in m for m in together)
    monkeypatch.setattr(gpu_device.DryGpu, "available_bytes", lambda self: 10 * BYTES - 1)
    alone = run(*providers)
    assert [m["status"] for m in alone] == ["ok"] * 3 and all(m["alone"] for m in alone)
    assert [len(m["seconds"]["rounds"]) for m in alone] == [2] * 3


def test_a_full_memory_is_no_failure():
    def full(params, form, settings):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    found, other = run(replace(FUSED, build=full), OWN)
    assert (found["status"], found["reason"]) == ("left out", "CUDA out of memory")
    assert other["status"] == "ok"


# Time


def test_what_may_take_too_long_is_not_begun(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bench.time, "monotonic", lambda: now[0])
    clock = bench.Clock(100.0)
    for time, late in ((0.0, False), (30.0, False), (60.0, False), (70.5, True)):
        now[0] = time
        assert clock.is_late() is late, time  # the longest piece took 30
    assert not bench.Clock(None).is_late()


def test_a_run_names_what_it_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(bench.Clock, "is_late", lambda self: True)
    chosen = ["--device", "dry-gpu", "--workloads", "gpt2", "--forms", "clip,step"]
    assert bench.main([*chosen, "--providers", "fused,lrfused", "--dtype", "float32"]) == 0
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["finished"] is True
    found = [(m["form"], m["provider"], m["status"], m["reason"]) for m in record["measurements"]]
    reason = ("left out", "no time was left")
    assert found == [(f, p, *reason) for f in ("clip", "step") for p in ("fused", "lrfused")]


def test_a_copy_of_the_tree_is_told_its_commit(monkeypatch):
    monkeypatch.setenv("COMMIT", "0123abc")
    assert result_files.commit() == {"hash": "0123abc", "dirty": False}
    monkeypatch.setenv("COMMIT", "0123abc-dirty")
    assert result_files.commit() == {"hash": "0123abc", "dirty": True}


# The table


def measured(provider, key, seconds, stream_rate=1000.0):
    parameters, rounds = GPU_WORKLOADS[key[0]].parameters, [seconds, seconds, seconds]
    return {
        **dict(zip(("workload", "dtype", "form"), key, strict=True)),
        "provider": provider,
        "status": "ok",
        "parameters": parameters,
        "seconds": {"median": seconds, "lower": seconds, "upper": seconds, "rounds": rounds},
        "bytes_per_parameter": 28,
        "gigabytes_per_second": 28e-9 * parameters / seconds,
        "stream": [stream_rate],
    }


@pytest.fixture
def record():
    """A run in which CUDA takes 1 ms, Triton 2 ms, torch 6 ms."""
    keys = dict.fromkeys(key for key, _ in table.TARGETS["gpu"])
    times = {"fused": 6e-3, "lrfused-cuda": 1e-3, "lrfused-triton": 2e-3}
    return {
        "schema": result_files.SCHEMA,
        "finished": True,
        "sittings": 1,
        "device": "gpu",
        "date": "2001-02-03T04:05:06+00:00",
        "commit": {"hash": "0123456789abcdef", "dirty": False},
        "machine": {"processor": "a processor", "threads": 3, "gpu": "a GPU"},
        "versions": {
            "torch": "9.9",
            "python": "3.99",
            "compiler": "c",
            "cuda": "13",
            "triton": "8",
        },
        "settings": {"quick": False, "rounds": 3},
        "stream": {"copy": [1000.0, 1000.0]},
        "measurements": [measured(p, key, t) for key in keys for p, t in times.items()],
    }


def test_every_backend_has_its_row(record):
    rows = table.targeted(record)
    assert len(rows) == 2 * len(table.TARGETS["gpu"])
    of_torch = {row.own: row for row in rows if row.against == "torch"}
    assert of_torch["lrfused-cuda"].ratio.median == pytest.approx(6.0)
    assert of_torch["lrfused-triton"].ratio.median == pytest.approx(3.0)
    assert {table.cells(row)[3] for row in rows} == {"1 ms (cuda)", "2 ms (triton)"}


def test_a_step_is_compared_with_a_copy_of_its_bytes(record):
    """124.4M parameters of 28 bytes at 1000 GB/s: 3.48 ms."""
    key = ("gpt2", "float32", "step")
    row = table.compare(record, key, "copy", "lrfused-triton")
    assert row.ratio.median == pytest.approx(1.742, rel=1e-3) and row.target == 0.92
    assert table.cells(row)[1:3] == ("copy bandwidth", "3.48 ms")
    records.by_case(record)[key]["lrfused-triton"].update(status="wrong")
    assert table.compare(record, key, "copy", "lrfused-triton").problem == "lrfused-triton: wrong"


def test_a_readme_shows_it(record, tmp_path):
    (tmp_path / "README.md").write_text("<!-- benchmark:gpu -->\n<!-- end -->\n")
    (tmp_path / "gpu.json").write_text(json.dumps(record))
    render.write(tmp_path / "README.md", tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "a GPU, copy 1000.0 GB/s; torch 9.9, python 3.99, CUDA 13, Triton 8; commit" in text
    assert "| 6.00 (6.00 to 6.00) | ≥ 15 |" in text
    drawn = (tmp_path / "docs" / "benchmark-gpu.svg").read_text()
    assert figure.digest(tmp_path / "gpu.json") in drawn
    assert FEW.name not in text
