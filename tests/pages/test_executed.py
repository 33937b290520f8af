"""docs/executed.md is what result files and tests say, and says it right."""

import json

import executed
import pytest
from executed import Evidence
from lib.collecting import BACKENDS, Collected

pytestmark = pytest.mark.usefixtures("listed_once")

OPTION = "tests/gpu/test_gpu_equality.py::test_every_option[{}-adamw-eps 0]"
EPS_0, ANOTHER = ("adamw", "eps 0"), ("adamw", "another")
LINES = [
    "tests/triton/test_triton_step.py::test_every_option[adamw-eps 0]",
    "tests/triton/test_triton_step.py::test_aligned[3-float32]",
    "tests/cuda_emulated/test_cuda_equality.py::test_other[skip]",
    "tests/step/test_equality.py::test_every_option[cpu-adamw-eps 0]",
    "tests/step/test_equality.py::test_every_option[triton_ptx-adamw-eps 0]",
    "tests/step/test_norm.py::test_aligned[cuda-5]",
]


def run_of(*tests, dry_run=False):
    return {
        "kind": "tests",
        "dry_run": dry_run,
        "date": "2001-02-03T04:05:06+00:00",
        "commit": {"hash": "0123456789abcdef", "dirty": False},
        "machine": {"gpu": "a GPU"},
        "versions": {"torch": "9.9", "triton": "8.8"},
        "tests": list(tests),
    }


def outcome(backend, result, **more):
    return {"test": OPTION.format(backend), "outcome": result, "backend": backend, **more}


def evidence(*runs):
    return Evidence([Collected.of(line) for line in LINES], list(runs))


def test_the_page_is_what_the_generator_gives():
    assert executed.PAGE.read_text(encoding="utf-8") == executed.page(), "run `make executed`"


def test_without_a_gpu_it_says_so_and_what_else_there_is():
    found = evidence()
    said = [found.option(backend, EPS_0) for backend in BACKENDS]
    assert said == [
        ("CPU",),
        ("interpreted", "run", "only compiled"),
        ("–", "–", "only compiled"),
    ]
    # Not over the table of options.
    assert found.option("cuda", ("adamw", "skip")) == ("–", "–", "only compiled")
    assert found.situation("triton", "test_aligned") == ("interpreted", "–", "only compiled")
    assert found.situation("cuda", "test_aligned") == ("emulated", "–", "only compiled")
    assert found.situation("cuda", "test_streams") == ("–", "–", "only compiled")


def test_what_ran_on_a_gpu_and_what_was_wrong_there():
    first = run_of(outcome("cuda", "passed", option="eps 0"), outcome("triton", "skipped"))
    second = run_of(
        outcome("cuda", "passed", option="eps 0"),
        outcome("cuda", "failed", option="eps 0"),
        outcome("triton", "passed", option="eps 0"),
        outcome("triton", "passed", option="other"),
    )
    found = evidence(first, second)
    assert found.option("cuda", EPS_0) == ("–", "–", "GPU (1), **wrong on GPU (2)**")
    assert found.option("triton", EPS_0) == ("interpreted", "run", "GPU (2)")
    assert found.option("triton", ("adamw", "other")) == ("–", "–", "GPU (2)")
    assert found.option("triton", ("sgd", "other")) == ("–", "–", "only compiled")
    assert found.situation("cuda", "test_every_option")[-1] == "GPU (1), **wrong on GPU (2)**"


@pytest.mark.parametrize(
    ("launched", "said"),
    [
        ("void lrfused::apply<4000>(Launch<4000>)", "GPU (1)"),
        ("void lrfused::applying<4000>(Launch<4000>)", "only compiled"),
    ],
)
def test_a_kernel_ran_if_the_profiler_saw_it(launched, said):
    ran = run_of(outcome("cuda", "passed", kernels=["void other()", launched]))
    assert evidence(ran).kernel("cuda", "apply", [EPS_0]) == ("–", "–", said)
    assert evidence().kernel("triton", "apply_kernel", [EPS_0])[:2] == ("interpreted", "run")
    assert evidence().kernel("triton", "apply_kernel", [EPS_0, ANOTHER])[:2] == ("–", "–")


def test_runs_are_read_and_dry_runs_are_not(tmp_path):
    ran = run_of(outcome("cuda", "passed", option="eps 0"), outcome("cuda", "failed"))
    (tmp_path / "gpu-equality.json").write_text(json.dumps(ran))
    (tmp_path / "gpu-few.json").write_text(json.dumps(run_of(outcome("cuda", "passed"))))
    (tmp_path / "gpu-graphs.json").write_text(json.dumps(run_of(dry_run=True)))
    (tmp_path / "gpu-run.json").write_text(json.dumps({"kind": "run", "dry_run": False}))
    (tmp_path / "gpu.json").write_text(json.dumps({"measurements": []}))
    text = executed.page(tmp_path)
    row = "| 1 | a GPU | 2001-02-03 | `0123456789` | torch 9.9, Triton 8.8 | before rules |"
    assert f"{row} 1 passed, 1 failed, 0 skipped |" in text and "Not yet run" not in text
    assert (
        "| AdamW: eps 0 | CPU | interpreted | run | only compiled | emulated | run | GPU (1) |"
        in text
    )
    for name in ("equality", "few"):
        (tmp_path / f"gpu-{name}.json").write_text(json.dumps(run_of(dry_run=True)))
    assert "Not yet run on a GPU" in executed.page(tmp_path)


def test_the_files_of_one_commit_and_machine_are_one_run(tmp_path):
    first, second = outcome("cuda", "passed", option="eps 0"), outcome("triton", "failed")
    other = {**run_of(second), "commit": {"hash": "9876543210", "dirty": False}}
    for name, run in (("a", run_of(first)), ("b", other), ("c", run_of(second))):
        (tmp_path / f"gpu-{name}.json").write_text(json.dumps(run))
    found = [(run["commit"]["hash"][:4], run["tests"]) for run in executed.gpu_runs(tmp_path)]
    assert found == [("0123", [first, second]), ("9876", [second])]


def test_what_ran_before_rules_says_nothing_of_them(tmp_path):
    """A row of another optimizer is of runs that name it."""
    before, sgd = run_of(outcome("cuda", "passed", option="default")), ("sgd", "default")
    since = run_of(outcome("cuda", "passed", option="default", rule="sgd"))
    since |= {"rules": ["adamw", "sgd"], "commit": {"hash": "9876543210", "dirty": False}}
    assert evidence(before).option("cuda", sgd)[-1] == "only compiled"
    assert evidence(before, since).option("cuda", sgd)[-1] == "GPU (2)"
    (tmp_path / "gpu-a.json").write_text(json.dumps(before))
    assert "**Nothing has run on a GPU since" in executed.page(tmp_path)
    (tmp_path / "gpu-b.json").write_text(json.dumps(since))
    text = executed.page(tmp_path)
    assert "Nothing has run" not in text and "Runs that name no optimizers are of AdamW" in text
    assert "| before rules | 1 passed" in text and "| AdamW, SGD | 1 passed" in text


def test_every_kernel_and_every_option_is_on_the_page():
    text = executed.page()
    found = executed.kernels()
    assert {"measure_kernel", "plan_kernel", "apply_kernel"} <= set(found["triton"])
    assert len(found["cuda"]) >= 2
    from lib.options import single_options
    from lib.rules_for_steps import RULES

    options = [
        f"{executed.TITLES[name]}: {option}"
        for name, rule in RULES.items()
        for option in single_options(rule)
    ]
    for name in (*options, *(f"`{kernel}`" for kernels in found.values() for kernel in kernels)):
        assert f"| {name} |" in text
