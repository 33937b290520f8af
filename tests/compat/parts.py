"""What is run on a stack: each part a process or two, and a verdict."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat.environments import folder, python, run_in, tree
from compat.process import Done
from compat.stacks import Stack
from lib import bare

PASSED, FAILED, SLOW, NOT_RUN = "passed", "failed", "slow", "not run"
TARGETS = "sm_80,sm_90,sm_100,gfx942"
DTYPES = "float16,bfloat16,float32,float64,mix"
ON_CPU = ["tests/contract", "tests/step", "tests/schedules", "tests/from_torch", "tests/faults"]
# Every option, dtype and size of the step; what else there is of it shows host Python. What
# Triton's compiler makes of the kernels is another part.
INTERPRETED = ["tests/triton", "--ignore", "tests/triton/test_triton_compiled.py"]
INTERPRETED += ["tests/step/test_equality.py", "tests/step/test_norm.py"]
CASES = ("tensors148", "tensors148_fresh", "tensors1000", "tensors1000_fresh")

Found = dict[str, Any]  # status, reason, and what the part has to tell


@dataclass(frozen=True)
class Part:
    """A part of a run: its name in the result file, what it does, whether two may run at once."""

    name: str
    run: Callable[[Stack, int], Found]


def kernels(stack: Stack, jobs: int) -> Found:
    """Every Triton kernel compiled for chips that are not here."""
    return compile_kernels(stack, TARGETS)


def compile_kernels(stack: Stack, targets: str, wheel: Path | None = None) -> Found:
    """By the stack's Triton, or by that of a wheel beside the stack's torch."""
    result = folder(stack) / "kernels.json"
    result.unlink(missing_ok=True)
    script = ["tests/triton/compiling.py", "--targets", targets, "--dtypes", DTYPES]
    more = {"PYTHONPATH": f"{wheel}:{tree(stack)}"} if wheel else {}
    cache = folder(stack) / "triton-cache"
    done = run_in(
        stack,
        [str(python(stack)), *script, "--json", str(result)],
        3000,
        TRITON_INTERPRET="0",
        TRITON_CACHE_DIR=str(cache),
        **more,
    )
    if not result.exists():
        return {"status": FAILED, "reason": _reason(done)}
    rows = json.loads(result.read_text())
    failed = [row for row in rows if row["status"] == "failed"]
    compiled = sum(row["status"] == "ok" for row in rows)
    unknown = {row["target"]: row["reason"] for row in rows if row["status"] == "unknown"}
    ok = done.status == 0 and compiled and not failed
    reason = "" if ok else "; ".join(row["reason"] for row in failed[:3]) or _reason(done)
    return {
        "status": PASSED if ok else FAILED,
        "reason": reason,
        "compiled": compiled,
        "unknown_targets": unknown,
        "seconds": done.seconds,
    }


def interpreter(stack: Stack, jobs: int) -> Found:
    """The Triton backend's tests, its kernels interpreted."""
    more = {"LRFUSED_TEST_BACKENDS": "triton", "TRITON_INTERPRET": "1"}
    return _tests(stack, INTERPRETED, jobs, more)


def on_cpu(stack: Stack, jobs: int) -> Found:
    """Contract, step, schedules, from_torch and faults with the reference and the C++ backend."""
    return _tests(stack, ON_CPU, jobs, {"LRFUSED_TEST_BACKENDS": "reference,cpu"})


def executed(stack: Stack, jobs: int, wheel: Path) -> Found:
    """The PTX of another Triton, run on the CPU: some options, and orders in a weak memory."""
    places = ["tests/step/test_equality.py", "tests/ptx/test_weak_steps.py", "-k", "triton"]
    more = {"LRFUSED_TEST_BACKENDS": "triton-ptx", "PYTHONPATH": f"{wheel}:{tree(stack)}"}
    return _tests(stack, places, jobs, more)


def times(stack: Stack, jobs: int) -> Found:
    """A step of many small tensors, torch's fused pipeline and lrfused in turn."""
    done = run_in(stack, [str(python(stack)), "benchmarks/walk_times.py"], 600)
    line = done.output.strip().splitlines()[-1:] or [""]
    if done.status != 0 or not line[0].startswith("{"):
        return {"status": FAILED, "reason": _reason(done)}
    found = json.loads(line[0])
    slow = [case for case in CASES if not found[case]["ratio"] >= 1.0]
    return {"status": SLOW if slow else PASSED, "reason": ", ".join(slow), **found}


def rehearsal(stack: Stack, jobs: int) -> Found:
    """`make gpu ARGS=--dry-run` where lrfused is neither installed nor importable."""
    place = folder(stack) / "bare"
    shutil.rmtree(place, ignore_errors=True)
    copy, interpreter = bare.make(place, str(python(stack)))
    results = place / "results"
    command = ["make", "-C", str(copy), "gpu", f"PYTHON={interpreter}", "ARGS=--dry-run"]
    done = run_in(stack, command, 2400, PYTHONPATH="", RESULTS_DIR=str(results))
    record = results / "gpu-run.json"
    if not record.exists():
        return {"status": FAILED, "reason": _reason(done)}
    stages = {stage["name"]: stage["status"] for stage in json.loads(record.read_text())["stages"]}
    bad = [
        f"{name}: {status}" for name, status in stages.items() if status not in ("ok", "left out")
    ]
    ok = done.status == 0 and not bad
    reason = "" if ok else "; ".join(bad) or _reason(done)
    return {"status": PASSED if ok else FAILED, "reason": reason, "stages": stages}


PARTS = (
    Part("kernels", kernels),
    Part("times", times),
    Part("rehearsal", rehearsal),
    Part("on_cpu", on_cpu),
    Part("interpreter", interpreter),
)


def _tests(stack: Stack, folders: list[str], jobs: int, more: dict[str, str]) -> Found:
    result = folder(stack) / "tests.xml"
    result.unlink(missing_ok=True)
    command = [str(python(stack)), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-n", str(jobs), "--dist", "worksteal", "--junitxml", str(result)]
    command += ["-m", "not slow"]
    done = run_in(stack, [*command, *folders], 3600, **more)
    if not result.exists():
        return {"status": FAILED, "reason": _reason(done)}
    return {
        **_counts(result),
        "status": PASSED if done.status == 0 else FAILED,
        "reason": "" if done.status == 0 else _reason(done),
        "seconds": done.seconds,
    }


def _counts(result: Path) -> Found:
    """How many tests passed, failed and were skipped, and which failed."""
    suite = ElementTree.parse(result).getroot().find("testsuite")
    assert suite is not None
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = total - skipped - len(failed)
    return {"passed": passed, "failed": len(failed), "skipped": skipped, "which": failed[:40]}


def _reason(done: Done) -> str:
    """The last line that says something."""
    if done.status is None:
        return f"not done after {done.seconds:.0f} s"
    lines = [line for line in done.output.splitlines() if re.search(r"\w", line)]
    return lines[-1][:300] if lines else f"exit status {done.status}"
