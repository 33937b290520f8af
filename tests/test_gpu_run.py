"""`make gpu` without a GPU: its stages, and all of them in a dry run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import benchmark_helpers  # noqa: F401
import pytest

# isort: split
import gpu_run
from gpu_run import Stage

# What a dry run leaves out: the steps are those of memcheck.
LEFT_OUT = {"racecheck", "initcheck", "synccheck"} | ({"compile"} if gpu_run.no_triton() else set())


def python(code: str, seconds: int = 60, **fields) -> Stage:
    return Stage("a stage", lambda *_: [sys.executable, "-c", code], seconds, **fields)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gpu.log").write_text("earlier\n")
    return tmp_path


def test_a_stage_says_what_became_of_it(folder):
    found = gpu_run.run(python("print('hello')"), 100, folder, dry=False)
    assert (found["status"], found["reason"], found["output"]) == ("ok", "", "hello\n")
    found = gpu_run.run(python("import sys; print('oh'); sys.exit(3)"), 100, folder, dry=False)
    assert (found["status"], found["reason"], found["output"]) == (
        "failed",
        "exit status 3",
        "oh\n",
    )
    assert (folder / "gpu.log").read_text() == "earlier\nhello\noh\n"


def test_a_stage_that_hangs_ends_with_what_it_started(folder, monkeypatch):
    """Its output stays, and its child does not."""
    monkeypatch.setattr(gpu_run, "LEAST", 1)
    code = "import subprocess as s, time; print(s.Popen(['sleep', '600']).pid); time.sleep(600)"
    found = gpu_run.run(python(code, seconds=3), 100, folder, dry=False)
    assert (found["status"], found["reason"]) == ("timed out", "after 3 s")
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


def test_what_is_not_begun_says_why(folder):
    late = gpu_run.run(python("print('hello')"), gpu_run.LEAST - 1, folder, dry=False)
    assert (late["status"], late["reason"]) == ("left out", f"{gpu_run.LEAST - 1} s were left")
    missing = gpu_run.run(python("", missing=lambda: "no such tool"), 100, folder, dry=False)
    assert (missing["status"], missing["reason"]) == ("left out", "no such tool")


def test_no_stage_gets_more_than_is_left(folder):
    def command(seconds, folder):
        return [sys.executable, "-c", f"print({seconds})"]

    assert gpu_run.run(Stage("a", command, 20), 100.0, folder, dry=False)["output"] == "20\n"
    assert gpu_run.run(Stage("a", command, 20), 12.7, folder, dry=False)["output"] == "12\n"


@pytest.mark.parametrize("dry", [False, True])
def test_kernels_are_interpreted_in_a_dry_run_only(dry):
    before = gpu_run.environment(python(""), dry)
    assert before.get("TRITON_INTERPRET") == ("1" if dry else None)
    assert before["PYTHONPATH"].split(os.pathsep)[0] == str(gpu_run.ROOT)


def test_the_most_important_come_first():
    names = [stage.name for stage in gpu_run.stages(dry=False)]
    order = ["build", "equality", "main benchmarks", "tests", "memcheck", "more benchmarks"]
    assert [name for name in names if name in order] == order
    assert {"racecheck", "initcheck", "synccheck", "first step"} <= set(names)
    assert gpu_run.SECONDS < 9 * 60


def test_a_stage_that_is_not_known_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_run.parse(["--only", "build,frobnicate"])
    assert "must be of build, " in capsys.readouterr().err


def test_a_dry_run_does_everything(tmp_path):
    """All GPU tests with the C++ backend, the benchmarks on tiny tensors."""
    variables = {**os.environ, "RESULTS_DIR": str(tmp_path), "COMMIT": "0123456789-dirty"}
    command = [sys.executable, "benchmarks/gpu_run.py", "--dry-run"]
    done = subprocess.run(command, cwd=gpu_run.ROOT, env=variables, capture_output=True, text=True)

    def read(name):
        return json.loads((tmp_path / name).read_text())

    record = read("gpu-run.json")
    assert done.returncode == 0, [s for s in record["stages"] if s["status"] != "ok"]
    assert record["finished"] and record["dry_run"]
    names = [stage.name for stage in gpu_run.stages(dry=True)]
    wanted = {name: "left out" if name in LEFT_OUT else "ok" for name in names}
    assert {s["name"]: s["status"] for s in record["stages"]} == wanted
    for name, least in (("gpu-equality.json", 50), ("gpu-tests.json", 30)):
        found = read(name)
        assert found["dry_run"] and found["commit"] == {"hash": "0123456789", "dirty": True}
        outcomes = [test["outcome"] for test in found["tests"]]
        assert outcomes.count("passed") >= least and "failed" not in outcomes
    times = read("gpu.json")
    assert times["device"] == "gpu" and times["finished"]
    found = {m["provider"]: m for m in times["measurements"]}
    assert all(found[name]["status"] == "ok" for name in ("fused", "foreach", "lrfused"))
    assert found["lrfused-cuda"]["status"] == "not installed"
    assert set(found["lrfused"]["gpu"]) == {"host_seconds", "launches", "copies", "kernel_seconds"}
