"""The benchmark harness on tiny work: what it compares, and that it refuses wrong results."""

import math
from dataclasses import replace

import pytest
import torch
from lib.benchmarks import FEW, FRESH, case_of, run, tiny, with_settings  # noqa: F401

# isort: split
import data
import memory
import pipelines
import verify
import workloads
from data import Data, Settings
from providers import PROVIDERS, Provider
from workloads import FORMS

INSTALLED = [p for p in PROVIDERS.values() if p.name != "compile" and p.missing() is None]


def after_step(change) -> Provider:
    """torch's fused AdamW with something done to parameters and optimizer after each step."""
    fused = PROVIDERS["fused"]

    def build(params, form, settings):
        pipeline = fused.build(params, form, settings)

        def step():
            pipeline.step()
            change(params, pipeline.optimizer)

        return pipelines.Pipeline(step, pipeline.optimizer)

    return replace(fused, build=build)


# Work


def test_gpt2_is_the_published_model():
    gpt2 = workloads.WORKLOADS["gpt2"]
    assert (len(gpt2.shapes), gpt2.parameters) == (148, 124_439_808)
    assert workloads.WORKLOADS["small"].parameters == pytest.approx(1e6, rel=0.1)


@pytest.mark.parametrize("form", FORMS)
def test_values_repeat_over_the_whole_workload(rng, form):
    made = Data(case_of(form), Settings(), seed=int(rng.numpy.integers(2**31)))
    params = made.parameters()
    flat = torch.cat([p.detach().reshape(-1) for p in params])
    assert torch.equal(flat, made.initial.repeat(4)[: len(flat)]) and len(flat) == 47
    made.write_gradients(params, 4)
    gradients = torch.cat([p.grad.reshape(-1) for p in params])
    assert torch.equal(gradients, made.gradients[1].repeat(4)[:47])
    assert made.norm(made.gradients[1]) == pytest.approx(float(gradients.double().norm()), rel=1e-9)


@pytest.mark.parametrize("workload", [FEW, FRESH], ids=["kept", "fresh"])
def test_gradients_are_kept_or_fresh(workload):
    made = Data(case_of(workload=workload), Settings())
    params = made.parameters()
    before = [p.grad for p in params]
    made.write_gradients(params, 0)
    assert [p.grad is g for p, g in zip(params, before, strict=True)] == [not workload.fresh] * 4


# Correctness of what is timed


@pytest.mark.parametrize("form", FORMS)
def test_the_reference_is_torchs_float64_pipeline(rng, form):
    case, settings = case_of(form, torch.float64, replace(FEW, shapes=((13,),))), Settings()
    made = Data(case, settings, seed=int(rng.numpy.integers(2**31)))
    expected, params = verify.reference(made, settings), made.parameters()
    pipeline = PROVIDERS["loop"].build(params, case.form, settings)
    for step in range(len(data.NORMS)):
        made.write_gradients(params, step)
        pipeline.step()
    state = pipeline.optimizer.state[params[0]]
    found = {"p": params[0].detach(), "m": state["exp_avg"], "v": state["exp_avg_sq"]}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected.values[name], rtol=1e-11, atol=1e-15)
        assert (expected.sizes[name] >= expected.values[name].abs() * (1 - 1e-12)).all()


@pytest.mark.parametrize("workload", [FEW, FRESH], ids=["kept", "fresh"])
@pytest.mark.parametrize("dtype", workloads.DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_provider_passes(form, dtype, workload):
    case = case_of(form, workloads.DTYPES[dtype], workload)
    found = run(case, *INSTALLED)
    assert {m["provider"]: m["status"] for m in found} == {p.name: "ok" for p in INSTALLED}
    assert {"loop", "foreach", "fused", "lrfused"} <= {m["provider"] for m in found}
    for m in found:
        assert len(m["seconds"]["rounds"]) == 2
        assert 0.0 < max(m["deviation"].values()) < 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_the_compiled_step_passes():
    (found,) = run(
        case_of("unscale", workload=replace(FEW, shapes=((3, 5),))), PROVIDERS["compile"]
    )
    assert (found["status"], found.get("reason")) == ("ok", None)


def _break_last_element(params, optimizer):
    with torch.no_grad():
        params[-1].view(-1)[-1] *= 1.0 + 1e-4


def _spoil_last(key):
    """Of a moment, when the parameters do not depend on it any more."""

    def change(params, optimizer):
        state = optimizer.state[params[1]]
        if state["step"] == len(data.NORMS):
            state[key].mul_(0.999)

    return change


def _spoil(params, optimizer):
    with torch.no_grad():
        params[2].fill_(math.nan)


WRONG = {
    "lr": with_settings(lr=0.01001),
    "warmup": with_settings(warmup_steps=5),
    "decay": with_settings(weight_decay=0.11),
    "beta1": with_settings(betas=(0.901, 0.95)),
    "beta2": with_settings(betas=(0.9, 0.951)),
    "clip": with_settings(max_grad_norm=1.001),
    "no clip": with_settings(max_grad_norm=1e9),
    "loss scale": with_settings(loss_scale=65600.0),
    "an element": after_step(_break_last_element),
    "first moment": after_step(_spoil_last("exp_avg")),
    "second moment": after_step(_spoil_last("exp_avg_sq")),
    "nan": after_step(_spoil),
}
# These are off by less than torch's norm may be: seen where there is no norm.
SPOILED = ("an element", "first moment", "second moment", "nan")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_result_gets_no_time(name):
    form = "step" if name in SPOILED else "unscale"
    found, other = run(case_of(form), WRONG[name], PROVIDERS["loop"])
    assert found["status"] == "wrong" and "seconds" not in found
    assert " is off by " in found["reason"] and "the bound is " in found["reason"]
    assert other["status"] == "ok" and "seconds" in other


def test_a_lost_clip_is_seen_in_bfloat16():
    (found,) = run(case_of("clip", torch.bfloat16), with_settings(max_grad_norm=1e9))
    assert found["status"] == "wrong"


def test_who_cannot_run_is_named_with_the_reason(monkeypatch):
    def broken(params, form, settings):
        raise OSError("no compiler")

    def not_for_bfloat16(params, form, settings):
        raise NotImplementedError('"unscale" not implemented for BFloat16\nand a trace')

    fused = PROVIDERS["fused"]
    too_long = "4 tensors, it would take too long beyond 3"
    unable = '"unscale" not implemented for BFloat16'
    cases = [
        ("failed", replace(fused, build=broken), "OSError: no compiler"),
        ("not installed", replace(fused, missing=lambda: "not installed"), "not installed"),
        ("left out", replace(fused, most_tensors=3), too_long),
        ("left out", replace(fused, build=not_for_bfloat16), unable),
        (
            "failed",
            replace(fused, name="lrfused-cuda", build=not_for_bfloat16),
            f"NotImplementedError: {unable}\nand a trace",
        ),
    ]
    for status, provider, reason in cases:
        found, other = run(case_of(), provider, PROVIDERS["lrfused"])
        assert (found["status"], found["reason"]) == (status, reason)
        assert other["status"] == "ok" and "seconds" not in found
    monkeypatch.setattr(memory, "available_bytes", lambda: 5 * 47 * 4 - 1)
    (found,) = run(case_of(), fused)
    assert found["status"] == "left out" and "GiB of memory" in found["reason"]
