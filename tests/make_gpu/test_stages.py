"""The stages of `make gpu`: what each needs, their order and limits; what a machine must have."""

import json
from pathlib import Path

import lib.benchmarks  # noqa: F401
import pytest

# isort: split
import gpu_facts
import gpu_run
import gpu_stage
from gpu_stages import STAGES

from lrfused import native

REAL = gpu_run.parse([])
HOPPER = {"gpu": {"name": "a GPU", "capability": "9.0"}, "versions": {"triton": "9.9"}}
ALL_THERE = {"backends": {"cpu": None, "cuda": None, "triton": None}, "walk": True}


# What a stage needs, and when its result is well


def test_a_benchmark_without_our_times_is_a_failure():
    def record(status, provider="lrfused-cuda"):
        found = {"provider": provider, "status": status, "reason": "why"}
        return {"measurements": [found, {"provider": "fused", "status": "ok"}]}

    check = gpu_stage.timed("lrfused-cuda")
    assert check(record("ok"), False) is None
    assert check(record("not installed"), False) == "lrfused-cuda: not installed: why"
    assert check(record("ok", "lrfused"), False) == "no times"
    assert check(record("ok", "lrfused"), True) is None  # stands in


@pytest.mark.parametrize(
    ("backend", "facts", "wanted"),
    [
        ("cuda", {**HOPPER, **ALL_THERE}, None),
        ("cuda", {"gpu": None}, ("left out", "no GPU is seen")),
        ("cuda", {}, ("failed", "nobody has said which backends there are")),
        ("cuda", HOPPER, ("failed", "nobody has said which backends there are")),
        (
            "cuda",
            {**HOPPER, "backends": {"cuda": "not built"}},
            ("failed", "cuda is not available: not built"),
        ),
        ("cuda", {"dry_run": True, "backends": {"cpu": None, "cuda": "not built"}}, None),
        (
            "triton",
            {**HOPPER, "backends": {"triton": "too old"}},
            ("failed", "triton is not available: too old"),
        ),
        (
            "triton",
            {**HOPPER, **ALL_THERE, "versions": {"triton": None}},
            ("left out", "Triton is not installed"),
        ),
        (
            "triton",
            {**HOPPER, **ALL_THERE, "dry_run": True, "interpreter": "a TypeError"},
            ("left out", "Triton's interpreter does not work here: a TypeError"),
        ),
    ],
)
def test_where_a_gpu_is_a_backend_that_is_missing_is_a_failure(backend, facts, wanted):
    assert gpu_stage.the(backend)({"dry_run": False, **facts}) == wanted


@pytest.mark.parametrize(
    ("facts", "dry", "wanted"),
    [
        ({"gpu": None}, False, ["no GPU is seen"]),
        ({"gpu": None}, True, []),
        ({**HOPPER, **ALL_THERE}, False, []),
        ({**HOPPER, **ALL_THERE, "walk": False}, False, ["the walk over gradients cannot look"]),
        (
            {**HOPPER, "backends": {"cpu": None, "cuda": "nvcc failed"}, "walk": True},
            False,
            ["cuda is not available: nvcc failed"],
        ),
        ({"gpu": None, "backends": {"cpu": None, "cuda": "not built"}, "walk": True}, True, []),
    ],
)
def test_what_a_run_cannot_go_without(facts, dry, wanted):
    assert gpu_facts.missing(facts, dry) == wanted


@pytest.mark.skipif(native.cpu is None, reason="no C++ module")
def test_whether_the_walk_looks_is_seen_of_a_step(monkeypatch):
    assert gpu_facts.backends()["walk"] is True
    monkeypatch.setattr(native, "cpu", None)
    assert gpu_facts.backends()["walk"] is False


# Their limits and order


def test_the_limits_together_are_less_than_nine_minutes():
    assert sum(stage.seconds for stage in STAGES) <= gpu_run.SECONDS == 525


def test_what_ran_on_a_gpu_would_fit_again():
    """By the seconds that each took there; benchmarks end by themselves when theirs are over."""
    taken = {}
    for name in (
        "gpu-run-first.json",
        "gpu-run-second.json",
        gpu_run.WHOLE,
    ):  # the later over those before
        record = json.loads((gpu_run.result_files.FOLDER / name).read_text())
        assert not record["dry_run"]
        ran = [stage for stage in record["stages"] if stage["status"] == gpu_stage.OK]
        taken.update({stage["name"]: stage["seconds"] for stage in ran})
    late = {"first step", "riders", "larger models and peers"}
    assert {stage.name for stage in STAGES} - taken.keys() == late
    left = float(gpu_run.SECONDS)
    for number, stage in enumerate(STAGES):
        limit = gpu_run.seconds_of(stage, STAGES[number + 1 :], left, REAL)
        needed = taken.get(stage.name, 0.0)
        assert limit >= stage.least or stage.name in late, stage.name
        if not stage.name.endswith(("times", "times without lag")):
            assert needed < limit, stage.name
        left -= min(needed, limit)


def test_the_most_telling_come_first():
    names = [stage.name for stage in STAGES]
    order = ["versions", "build C++", "build CUDA", "backends", "CUDA equality", "CUDA graphs"]
    order += ["CUDA phases", "CUDA times without lag", "CUDA times", "host times"]
    order += ["CUDA memcheck", "CUDA racecheck", "Triton few dtypes", "Triton equality"]
    order += ["Triton times", "all times", "other CUDA tests"]
    assert names[: len(order)] == order
    assert {"CUDA initcheck", "CUDA synccheck", "larger models and peers"} <= set(names)


def test_no_stage_of_cuda_alone_asks_for_triton():
    first = next(i for i, stage in enumerate(STAGES) if "Triton" in stage.name)
    run = gpu_stage.Run(60, Path("results"), False)
    for stage in STAGES[:first]:
        told = " ".join([*stage.command(run), *stage.variables.values()])
        assert "triton" not in told.lower(), stage.name
        if "pytest" in told:
            assert stage.variables["GPU_BACKENDS"] == "cuda"


def test_a_failed_nvcc_is_a_failure_where_a_gpu_is():
    (stage,) = (stage for stage in STAGES if stage.name == "build CUDA")
    variables = gpu_run.environment(stage, {"dry_run": False, **HOPPER})
    assert variables["LRFUSED_CUDA"] == "required"
    assert variables["LRFUSED_CUDA_ARCH_LIST"] == "9.0+PTX"
