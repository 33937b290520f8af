"""Riders in the benchmark: torch's passes do the same, their results are checked, their bytes."""

from dataclasses import replace

import pytest
import torch
from lib.benchmarks import FEW, case_of, run, tiny  # noqa: F401

# isort: split
import bench
import providers
import rider_costs
import rider_table
import verify
import workloads
from data import Data, Settings
from providers import PROVIDERS
from workloads import CLIP, DTYPES, FORMS, STEP

FUSED, OWN = PROVIDERS["fused"], PROVIDERS["lrfused"]


def ridden(rider):
    return replace(FEW, name=f"few-{rider}", rider=rider)


def spoiled(provider, change):
    """With something done after each step."""

    def build(params, form, settings):
        pipeline = provider.build(params, form, settings)

        def step():
            pipeline.step()
            with torch.no_grad():
                change(params, pipeline)

        return replace(pipeline, step=step)

    return replace(provider, build=build)


def without(provider):
    """One that forgets the rider (but has the averages, as they were at first)."""

    def build(params, form, settings):
        pipeline = provider.build(params, form, replace(settings, rider=""))
        first = [p.detach().float().clone() for p in params]
        return replace(pipeline, averages=lambda: first)

    return replace(provider, build=build)


# What is timed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rider", rider_costs.RIDERS)
def test_torchs_passes_and_ours_do_the_same(rider, form, dtype):
    work = case_of(form, DTYPES[dtype], ridden(rider))
    contestants = providers.with_plain([FUSED, OWN], rider)
    found = run(work, *contestants)
    names = ["fused", "lrfused", "plain-fused", "plain-lrfused"]
    assert [(m["provider"], m["status"]) for m in found] == [(name, "ok") for name in names]
    left_behind = {"average": "a", "masks": "", "zero-grads": "g"}[rider]
    for m in found:
        is_plain = m["provider"].startswith("plain-")
        assert set(m["deviation"]) == {*"pmv", *("" if is_plain else left_behind)}


@pytest.mark.parametrize("rider", rider_costs.RIDERS)
def test_a_rider_that_does_nothing_gets_no_time(rider):
    for provider in (FUSED, OWN):
        (found,) = run(case_of("step", workload=ridden(rider)), without(provider))
        assert found["status"] == "wrong", found


def _an_average(params, pipeline):
    pipeline.averages()[-1].view(-1)[-1] *= 1.0 + 1e-4


def _a_masked_weight(params, pipeline):
    params[0][params[0] == 0.0] = 1e-30


def _a_gradient(params, pipeline):
    params[-1].grad.view(-1)[-1] = 1e-30


SPOILED = {"average": _an_average, "masks": _a_masked_weight, "zero-grads": _a_gradient}


@pytest.mark.parametrize("rider", SPOILED)
def test_a_single_wrong_element_gets_no_time(rider):
    work = case_of("step", workload=ridden(rider))
    (found,) = run(work, spoiled(OWN, SPOILED[rider]))
    assert found["status"] == "wrong" and "the bound is" in found["reason"]


def test_the_reference_of_an_average_is_the_closed_form(rng):
    """After three updates: d^2 p1 + d (1 - d) p2 + (1 - d) p3."""
    settings = Settings(rider="average", ema_decay=float(rng.numpy.uniform(0.2, 0.9)))
    made = verify.Average(torch.zeros(7, dtype=torch.float64), settings.ema_decay)
    values = [torch.randn(7, dtype=torch.float64, generator=rng.torch) for _ in range(3)]
    for value in values:
        made.update(value, value.abs())
    d = settings.ema_decay
    weights = (d * d, d * (1.0 - d), 1.0 - d)
    for found, terms in ((made.value, values), (made.size, [v.abs() for v in values])):
        wanted = sum(w * term for w, term in zip(weights, terms, strict=True))
        torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-15)


def test_masks_repeat_as_the_values_do():
    made = Data(case_of(workload=ridden("masks")), Settings())
    flat = torch.cat([mask.reshape(-1) for mask in rider_costs.masks(made.parameters())])
    pool = rider_costs.mask_pool(made.total, torch.device("cpu"))
    assert flat.dtype == torch.bool and len(pool) == 13
    assert torch.equal(flat, pool.repeat(4)[:47]) and 0 < int(pool.sum()) < 13


def test_other_providers_are_left_out_with_the_reason():
    (found,) = run(case_of(workload=ridden("masks")), PROVIDERS["loop"])
    assert (found["status"], found["reason"]) == ("left out", "it is not timed with riders")


# Their bytes


@pytest.mark.parametrize(
    ("rider", "wanted"),
    [
        # torch fused and lrfused with a clip: 40 and 32 in float32, 20 and 16 in bfloat16, and:
        ("average", {"float32": (12, 8), "bfloat16": (18, 8)}),
        ("masks", {"float32": (24, 0.25), "bfloat16": (12, 0.25)}),
        ("zero-grads", {"float32": (4, 4), "bfloat16": (2, 2)}),
    ],
)
def test_bytes_that_riders_add(rider, wanted):
    for name, added in wanted.items():
        dtype = DTYPES[name]
        for provider, more in zip((FUSED, OWN), added, strict=True):
            ride = provider.bytes_per_parameter(CLIP, dtype, rider=rider)
            assert ride == provider.bytes_per_parameter(CLIP, dtype) + more
    alone = OWN.bytes_per_parameter(STEP, torch.float32, rider="masks")
    assert alone == 28 + 1 / 8  # measure is left out


# Their table


def measured(name, key, rounds, moved):
    place = dict(zip(("workload", "dtype", "form"), key, strict=True))
    times = {"median": sorted(rounds)[1], "rounds": rounds}
    found = {**place, "provider": name, "status": "ok", "seconds": times}
    return {**found, "bytes_per_parameter": moved}


def test_what_a_rider_adds_is_the_difference_round_by_round():
    key = ("gpt2-average", "float32", "clip")
    turns = {
        "fused": ([0.5, 0.7, 0.9], 52),
        "plain-fused": ([0.4, 0.5, 0.6], 40),
        "lrfused": ([0.25, 0.25, 0.3], 40),
        "plain-lrfused": ([0.26, 0.2, 0.2], 32),
    }
    found = [measured(name, key, *turn) for name, turn in turns.items()]
    (row,) = rider_table.rows({"measurements": found})
    assert rider_table.cells(row) == (
        "GPT-2 124M, averaged, float32: clip + step + schedule",
        "52 B, 700 ms",
        "12 B, 200 ms (120 ms to 280 ms)",
        "40 B, 250 ms",
        "8 B, 50 ms (2 ms to 90 ms)",
        "2.80 (2.16 to 2.96)",
    )
    found[3].update(status="left out")
    assert rider_table.rows({"measurements": found}) == []


def test_riders_are_in_every_run():
    """On a CPU, in a quick run too, and on a GPU; in one form."""
    quick, whole = bench.parse(["--quick"]).workloads, bench.parse([]).workloads
    gpu = bench.parse(["--device", "gpu"]).workloads
    for rider in rider_costs.RIDERS:
        assert f"small-{rider}" in quick and f"gpt2-{rider}" in whole and f"gpt2-{rider}" in gpu
    cases = workloads.select(["gpt2-masks"], list(DTYPES), list(FORMS))
    assert [(case.dtype_name, case.form) for case in cases] == [(name, CLIP) for name in DTYPES]
    assert set(workloads.RIDERS) == set(rider_costs.RIDERS)
