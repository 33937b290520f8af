"""A stage of `make gpu`: what it runs, for how long, what it needs, when its result is well.

It knows nothing but Python: torch and lrfused are what stages are there to find.
"""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from result_files import ROOT

OK, FAILED, TIMED_OUT, LEFT_OUT, NO_TIME = "ok", "failed", "timed out", "left out", "no time"
STAND_INS = {"lrfused-cuda": "lrfused", "lrfused-triton": "lrfused-triton"}  # in a dry run
WORKERS = 8  # of 16 cores; each steps the reference on the CPU

Facts = dict[str, Any]  # what gpu_facts.py has found so far
Verdict = tuple[str, str]  # a status and its reason


@dataclass(frozen=True)
class Run:
    """What a stage is told: its seconds, the folder of the results, whether there is no GPU."""

    seconds: int
    folder: Path
    dry: bool


@dataclass(frozen=True)
class Stage:
    """One process.

    Attributes:
        seconds: its limit; the limits of all stages together are those of a run.
        needs: why it cannot be done here, and whether that is a failure; None: it can.
        variables: added to its environment.
        result: a file that it writes.
        check: why its result (of a dry run?) is not well although the process was; None: it is.
        dry: why a dry run leaves it out.
        takes_spare: gets the time that earlier stages did not use, too.
        least: it is not begun with fewer seconds.
        shows: how many of its last lines are printed.
    """

    name: str
    command: Callable[[Run], list[str]]
    seconds: int
    needs: Callable[[Facts], Verdict | None] = lambda facts: None
    variables: dict[str, str] = field(default_factory=dict)
    result: str | None = None
    check: Callable[[dict[str, Any], bool], str | None] = lambda record, dry: None
    dry: str | None = None
    takes_spare: bool = False
    least: int = 10
    shows: int = 0


# What a stage needs


def a_gpu(facts: Facts) -> Verdict | None:
    """A GPU, or that nobody could look; a dry run needs none."""
    there = facts.get("gpu", "unknown") or facts["dry_run"]
    return None if there else (LEFT_OUT, "no GPU is seen")


def the(backend: str) -> Callable[[Facts], Verdict | None]:
    """A backend: where a GPU is, one that is missing is a failure."""

    def needs(facts: Facts) -> Verdict | None:
        if a_gpu(facts):
            return a_gpu(facts)
        if "backends" not in facts:
            return FAILED, "nobody has said which backends there are"
        if backend == "triton" and facts["versions"]["triton"] is None:
            return LEFT_OUT, "Triton is not installed"
        if backend == "triton" and facts.get("interpreter"):
            return LEFT_OUT, f"Triton's interpreter does not work here: {facts['interpreter']}"
        name = "cpu" if backend == "cuda" and facts["dry_run"] else backend
        reason = facts["backends"][name]
        return (FAILED, f"{name} is not available: {reason}") if reason else None

    return needs


def a_sanitizer(facts: Facts) -> Verdict | None:
    """A dry run takes the steps without one."""
    if not facts.get("dry_run") and shutil.which("compute-sanitizer") is None:
        return LEFT_OUT, "no compute-sanitizer"
    return the("cuda")(facts)


# Whether a result is well


def a_test_passed(record: dict[str, Any], dry: bool) -> str | None:
    """Tests that were all skipped show nothing."""
    outcomes = [test["outcome"] for test in record["tests"]]
    if "passed" in outcomes:
        return None
    reasons = {test["reason"] for test in record["tests"] if "reason" in test}
    return f"no test passed of {len(outcomes)}: {'; '.join(sorted(reasons))[:300]}"


def timed(provider: str) -> Callable[[dict[str, Any], bool], str | None]:
    """A provider has times in one case at least; in a dry run who stands in for it."""

    def check(record: dict[str, Any], dry: bool) -> str | None:
        name = STAND_INS[provider] if dry else provider
        found = [m for m in record["measurements"] if m["provider"] == name]
        if any(m["status"] == OK for m in found):
            return None
        return f"{name}: {found[0]['status']}: {found[0]['reason']}" if found else "no times"

    return check


# What a stage runs


def script(path: str, *arguments: str, out: str | None = None) -> Callable[[Run], list[str]]:
    """A script of the repository by the Python that runs this one."""

    def command(run: Run) -> list[str]:
        place = [] if out is None else ["--out", str(run.folder / out)]
        return [sys.executable, str(ROOT / path), *arguments, *place]

    return command


def facts(what: str) -> Callable[[Run], list[str]]:
    return lambda run: script("benchmarks/gpu_facts.py", what, out="gpu-facts.json")(run)


def tests(
    name: str, result: str, seconds: int, backend: str, *places: str, most: int = 30, **more: Any
) -> Stage:
    """GPU tests of one backend, none of more than so many seconds; warnings are no errors here.

    A test that hangs takes its process with it: with xdist a worker, and another goes on.
    """

    def command(run: Run) -> list[str]:
        there = importlib.util.find_spec("xdist") is not None and not run.dry
        workers = ["-n", str(WORKERS), "--dist", "worksteal"] if there else []
        place = ["env", f"GPU_RESULTS={run.folder / result}", sys.executable, "-m", "pytest"]
        options = ["-q", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider"]
        return [*place, *options, *workers, *places]

    variables = {"GPU_BACKENDS": backend, "GPU_TEST_SECONDS": str(most)}
    check = {"result": result, "check": a_test_passed, "variables": variables}
    return Stage(name, command, seconds, the(backend), **check, **more)


def times(
    name: str,
    result: str,
    seconds: int,
    providers: str,
    work: str,
    device: str = "gpu",
    **more: Any,
) -> Stage:
    """Benchmarks; the first of the providers is the one that the stage is about."""
    own = providers.split(",")[0]

    def command(run: Run) -> list[str]:
        most = ["--seconds", str(max(1, run.seconds - 5))]
        where = ["--device", "dry-gpu" if run.dry else device]
        who = ["--providers", ",".join([providers, *([STAND_INS[own]] if run.dry else [])])]
        few = ["--rounds", "1", "--forms", "unscale", "--dtype", "float32"] if run.dry else []
        chosen = [*where, *most, *who, *work.split(), *few]
        return script("benchmarks/bench.py", *chosen, out=result)(run)

    needs = the(own.removeprefix("lrfused-"))
    return Stage(name, command, seconds, needs, result=result, check=timed(own), shows=50, **more)


def sanitizer(tool: str, seconds: int, backend: str = "cuda", **more: Any) -> Stage:
    """A few small steps of one backend, watched; a dry run takes them unwatched."""

    def command(run: Run) -> list[str]:
        watch = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        steps = script("tests/gpu/small_steps.py", "cpu" if run.dry else backend)(run)
        return steps if run.dry else [*watch, *steps]

    uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return Stage(f"CUDA {tool}", command, seconds, a_sanitizer, uncached, **more)
