"""`make gpu` without a GPU: what becomes of a stage and of a run; a bare machine rehearses it."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import lib.benchmarks  # noqa: F401
import pytest
from lib import bare

# isort: split
import gpu_run
import gpu_stage
from gpu_stage import Stage
from gpu_stages import STAGES

DRY, REAL = (gpu_run.parse(arguments) for arguments in (["--dry-run"], []))


def python(code: str, seconds: int = 60, **fields) -> Stage:
    return Stage("a stage", lambda run: [sys.executable, "-c", code], seconds, **fields)


def do(stage: Stage, folder: Path, seconds: int = 60, options=REAL) -> tuple[str, str]:
    found = gpu_run.do(stage, seconds, folder, options)
    return found["status"], found["reason"]


# What becomes of a stage


def test_a_stage_says_what_became_of_it(tmp_path):
    (tmp_path / "gpu.log").write_text("earlier\n")
    found = gpu_run.do(python("print('hello')"), 60, tmp_path, REAL)
    assert (found["status"], found["reason"], found["output"]) == ("ok", "", "hello\n")
    assert do(python("import sys; print('oh'); sys.exit(3)"), tmp_path) == (
        "failed",
        "exit status 3",
    )
    assert (tmp_path / "gpu.log").read_text() == "earlier\nhello\noh\n"


def test_a_stage_that_hangs_ends_with_what_it_started(tmp_path):
    """Its output stays, and its child does not."""
    code = "import subprocess as s, time; print(s.Popen(['sleep', '600']).pid); time.sleep(600)"
    found = gpu_run.do(python(code), 10, tmp_path, REAL)
    assert (found["status"], found["reason"]) == ("timed out", "after 10 s")
    for _ in range(600):  # the dead need a moment
        if not is_alive(int(found["output"])):
            return
        time.sleep(0.1)
    pytest.fail("the child is alive")


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def writing(tests: list[dict], folder: Path, code: str = "", **fields) -> Stage:
    """A stage that writes these outcomes of tests."""
    record = json.dumps({"tests": tests, **fields})
    text = (
        f"import pathlib; pathlib.Path({str(folder / 'x.json')!r}).write_text({record!r}); {code}"
    )
    return python(text, result="x.json", check=gpu_stage.a_test_passed)


def test_tests_that_were_all_skipped_are_a_failure(tmp_path):
    skipped = {"outcome": "skipped", "reason": "no GPU"}
    assert do(writing([skipped, {"outcome": "passed"}], tmp_path), tmp_path) == ("ok", "")
    for tests, reason in (([skipped] * 2, "of 2: no GPU"), ([], "of 0: ")):
        found = do(writing(tests, tmp_path), tmp_path)
        assert found == ("failed", f"no test passed {reason}")


def test_a_result_of_an_earlier_run_does_not_count(tmp_path):
    (tmp_path / "x.json").write_text('{"tests": [{"outcome": "passed"}]}')
    stage = python("", result="x.json", check=gpu_stage.a_test_passed)
    assert do(stage, tmp_path) == ("failed", "it did not write x.json")


def test_a_process_that_ends_in_a_test_names_it(tmp_path):
    stage = writing([], tmp_path, "import sys; sys.exit(1)", running=["a.py::test_b"])
    assert do(stage, tmp_path) == ("failed", "exit status 1, in a.py::test_b")


# What is not begun


def test_what_is_not_begun_says_why(tmp_path):
    assert do(python(""), tmp_path, 9) == ("no time", "9 s were left, 10 are needed")
    late = do(python("", least=61), tmp_path, 60)
    assert late == ("no time", "60 s were left, 61 are needed")
    assert do(python("", dry="it is dry"), tmp_path, options=DRY) == ("left out", "it is dry")
    assert do(python("", dry="it is dry"), tmp_path) == ("ok", "")


# Time


def test_no_stage_gets_more_than_is_left_and_some_get_what_is_spared():
    stage, greedy = python("", 20), python("", 20, takes_spare=True)
    later = [python("", 30), python("", 40)]
    for left, wanted in ((500.0, 20), (12.7, 12)):
        assert gpu_run.seconds_of(stage, later, left, REAL) == wanted
    for left, wanted in ((500.0, 430), (85.0, 20), (12.7, 12)):
        assert gpu_run.seconds_of(greedy, later, left, REAL) == wanted
    assert gpu_run.seconds_of(stage, later, 5000.0, DRY) == 20 * gpu_run.PATIENCE


@pytest.mark.parametrize("dry", [False, True])
def test_kernels_are_interpreted_in_a_dry_run_only(dry):
    before = gpu_run.environment(python(""), {"dry_run": dry})
    assert before.get("TRITON_INTERPRET") == ("1" if dry else None)
    assert before["PYTHONPATH"].split(os.pathsep)[0] == str(gpu_run.result_files.ROOT)


def test_a_stage_that_is_not_known_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_run.parse(["--only", "build C++,frobnicate"])
    assert "must be of versions, " in capsys.readouterr().err


# Whole


def test_a_run_goes_on_after_a_failure_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    stages = [python("print('oh'); raise SystemExit(2)"), python("", dry="not now"), python("")]
    monkeypatch.setattr(gpu_run, "STAGES", stages)
    (tmp_path / "gpu-facts.json").write_text("{}")  # of an earlier run
    assert gpu_run.main(["--dry-run"]) == 1
    record = json.loads((tmp_path / "gpu-run.json").read_text())
    assert record["finished"] and record["kind"] == "run"
    assert [s["status"] for s in record["stages"]] == ["failed", "left out", "ok"]
    printed = capsys.readouterr().out
    assert "a stage: failed exit status 2" in printed and "    oh\n" in printed
    assert "not well: a stage" in printed and not (tmp_path / "gpu-facts.json").exists()
    assert "no time was left" not in printed


def test_a_run_names_what_no_time_was_left_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    late = replace(python(""), name="late")
    monkeypatch.setattr(gpu_run, "STAGES", [python(""), late, replace(late, name="later")])
    monkeypatch.setattr(
        gpu_run, "seconds_of", lambda stage, *_: 60 if stage.name == "a stage" else 9
    )
    assert gpu_run.main(["--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "late: no time 9 s were left" in printed
    assert """no time was left: a run with ARGS="--only 'late,later'" takes""" in printed


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.skipif(not (gpu_run.result_files.ROOT / ".git").exists(), reason="no repository")
@pytest.mark.slow
def test_a_dry_run_on_a_bare_machine(tmp_path):
    """From a tar of the tree, where lrfused is neither installed nor built."""
    tree, interpreter = bare.make(tmp_path)
    assert not list(tree.rglob("*.so")) and not (tree / ".git").exists()
    results = tmp_path / "results"
    variables = {**bare.environment(), "RESULTS_DIR": str(results), "COMMIT": "0123456789-dirty"}
    command = ["make", "gpu", f"PYTHON={interpreter}", "ARGS=--dry-run"]
    done = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True)

    def read(name):
        return json.loads((results / name).read_text())

    record = read("gpu-run.json")
    assert done.returncode == 0, done.stdout[-5000:]
    assert record["finished"] and record["dry_run"]
    facts = read("gpu-facts.json")
    wanted = {s.name: "left out" if s.dry or no_triton(s, facts) else "ok" for s in STAGES}
    assert {s["name"]: s["status"] for s in record["stages"]} == wanted
    assert all(s["reason"] for s in record["stages"] if s["status"] == "left out")
    assert facts["walk"] and facts["finished"]
    for name, least in (("gpu-equality.json", 10), ("gpu-graphs.json", 7), ("gpu-tests.json", 12)):
        found = read(name)
        assert found["dry_run"] and found["commit"] == {"hash": "0123456789", "dirty": True}
        assert found["finished"] and not found["running"]
        outcomes = [test["outcome"] for test in found["tests"]]
        assert outcomes.count("passed") >= least and "failed" not in outcomes
        assert {t["backend"] for t in found["tests"] if t["outcome"] == "passed"} == {"cpu"}
    times = read("gpu-first.json")
    found = {(m["workload"], m["provider"]): m for m in times["measurements"]}
    assert times["finished"] and times["device"] == "gpu"
    assert all(found["gpt2", name]["status"] == "ok" for name in ("fused", "foreach"))
    assert found["gpt2-sgd", "fused"]["status"] == "ok"
    for work in ("gpt2", "gpt2-sgd", "gpt2-lion"):
        assert found[work, "lrfused-cuda"]["status"] == "not installed"
        own = found[work, "lrfused"]
        assert own["status"] == "ok"
        assert set(own["gpu"]) == {"host_seconds", "launches", "copies", "kernel_seconds"}


def no_triton(stage: Stage, facts: dict) -> bool:
    """Not installed, or its interpreter does not work with this NumPy."""
    missing = facts["versions"]["triton"] is None or facts.get("interpreter")
    return "Triton" in stage.name and bool(missing)
