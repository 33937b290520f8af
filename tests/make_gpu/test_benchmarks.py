"""The benchmark harness for a GPU, as far as a CPU can stand in for one."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lib.benchmarks import FEW, case_of, tiny  # noqa: F401

# isort: split
import bench
import gpu_device
import result_files
import runner
import stream
from data import Data, Settings
from gpu_providers import GPU_PROVIDERS, debiased
from providers import PROVIDERS
from workloads import FORMS, GPU_WORKLOADS

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
