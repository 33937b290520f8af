"""All that is done with a GPU while there is one: build, test, sanitise, benchmark.

    make gpu [PYTHON=python3] [ARGS="--seconds 500 --only equality,tests"]
    make gpu PYTHON=.venv/bin/python ARGS=--dry-run

Each stage is a process of its own with a limit; the most important come first. Installs nothing,
needs no network. Results are written as they come, to benchmarks/results or the folder RESULTS_DIR:
gpu-run.json (what became of each stage), gpu-equality.json and gpu-tests.json (every test),
gpu.json and gpu-more.json (times), gpu.log (all output). Exits with 1 if a stage failed.

A dry run does all of it as far as a machine without a GPU can: on tiny tensors of the CPU.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import machine
import records
import torch

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 525  # for everything
LEAST = 10  # a stage with less is not begun
TAIL = 3000  # characters of its output that stay in gpu-run.json
WORKERS = 8  # compiling Triton's kernels is most of the tests' time
MAIN_PROVIDERS = "fused,foreach,lrfused-cuda,lrfused-triton"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")

OK, FAILED, TIMED_OUT, LEFT_OUT = "ok", "failed", "timed out", "left out"


@dataclass(frozen=True)
class Stage:
    """One process.

    Attributes:
        command: is told its seconds and the folder of the results.
        seconds: its limit, if so much is left.
        missing: why it cannot be done here, or None.
        variables: added to its environment.
    """

    name: str
    command: Callable[[int, Path], list[str]]
    seconds: int
    missing: Callable[[], str | None] = lambda: None
    variables: dict[str, str] = field(default_factory=dict)


# Stages


def script(path: str, *arguments: str) -> Callable[[int, Path], list[str]]:
    """A script of the repository by the Python that runs this one."""
    return lambda seconds, folder: [sys.executable, str(ROOT / path), *arguments]


def tests(result: str, *arguments: str, workers: int) -> Callable[[int, Path], list[str]]:
    """GPU tests; a newer library's warnings are no errors here."""

    def command(seconds: int, folder: Path) -> list[str]:
        there = importlib.util.find_spec("xdist") is not None
        parallel = ["-n", str(workers), "--dist", "worksteal"] if there else []
        place = ["env", f"GPU_RESULTS={folder / result}", sys.executable, "-m", "pytest"]
        options = ["-q", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider", *parallel]
        return [*place, *options, *arguments]

    return command


def benchmark(result: str, *arguments: str, device: str) -> Callable[[int, Path], list[str]]:
    def command(seconds: int, folder: Path) -> list[str]:
        out = ["--out", str(folder / result), "--seconds", str(max(1, seconds - 5))]
        return [
            sys.executable,
            str(ROOT / "benchmarks/bench.py"),
            "--device",
            device,
            *out,
            *arguments,
        ]

    return command


def sanitizer(tool: str, backends: Sequence[str]) -> Callable[[int, Path], list[str]]:
    def command(seconds: int, folder: Path) -> list[str]:
        watch = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        steps = [sys.executable, str(ROOT / "tests/gpu/small_steps.py"), *backends]
        return [*(watch if shutil.which(watch[0]) else []), *steps]

    return command


def no_sanitizer(tool: str, dry: bool) -> str | None:
    """Why it cannot be used; a dry run takes the steps once, with it or without."""
    if dry:
        return None if tool == SANITIZERS[0] else "the steps are the same"
    return None if shutil.which("compute-sanitizer") else "no compute-sanitizer"


def no_triton() -> str | None:
    return None if importlib.util.find_spec("triton") else "no Triton"


def present_architecture() -> dict[str, str]:
    """The CUDA module is built for the GPU that is there only: each chip takes half a minute."""
    if not torch.cuda.is_available():
        return {}
    major, minor = torch.cuda.get_device_capability()
    return {"LRFUSED_CUDA_ARCH_LIST": f"{major}.{minor}+PTX"}


def stages(dry: bool) -> list[Stage]:
    """In the order of their importance."""
    device, workers = ("dry-gpu", 1) if dry else ("gpu", WORKERS)
    few = ["--rounds", "1", "--forms", "unscale", "--dtype", "float32"] if dry else []
    main = ["--workloads", "tiny1000" if dry else "gpt2,gpt3,tiny1000,tiny1000-fresh"]
    main += ["--providers", MAIN_PROVIDERS + (",lrfused" if dry else "")]
    more = ["--workloads", "llama-7b", "--providers", "fused,optimi,lrfused"] if dry else []
    build, choice = script("setup.py", "build_ext", "--inplace"), "optional"
    first = Stage("first step", script("benchmarks/first_step.py"), 40)
    if dry:  # nothing is overwritten that others may be using
        build, choice = script("setup.py", "--name"), "never"
        compiling = script("tests/triton/compiling.py", "90", "float32")
        first = Stage("compile", compiling, 300, no_triton, {"TRITON_INTERPRET": "0"})
    equality = "tests/gpu/test_gpu_equality.py"
    return [
        Stage("build", build, 180, variables={"LRFUSED_BUILD": choice, **present_architecture()}),
        Stage("info", lambda *_: [sys.executable, "-m", "lrfused"], 60),
        Stage("equality", tests("gpu-equality.json", equality, workers=workers), 150),
        Stage("main benchmarks", benchmark("gpu.json", *main, *few, device=device), 120),
        Stage(
            "tests",
            tests("gpu-tests.json", "tests/gpu", "--ignore", equality, workers=workers),
            150,
        ),
        first,
        *[
            Stage(
                tool,
                sanitizer(tool, ["cpu"] if dry else ["cuda", "triton"]),
                40,
                partial(no_sanitizer, tool, dry),
                {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            )
            for tool in SANITIZERS
        ],
        Stage("more benchmarks", benchmark("gpu-more.json", *more, *few, device=device), SECONDS),
    ]


# The run


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    folder, end = records.folder(), time.monotonic() + options.seconds
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.log").write_text("")
    record: dict[str, Any] = {
        "schema": records.SCHEMA,
        "kind": "run",
        "dry_run": options.dry_run,
        "finished": False,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "seconds": options.seconds,
        "stages": [],
    }
    for stage in stages(options.dry_run):
        if options.only and stage.name not in options.only:
            continue
        found = run(stage, end - time.monotonic(), folder, options.dry_run)
        print(
            f"{stage.name}: {found['status']} {found['reason']} ({found['seconds']} s)", flush=True
        )
        record["stages"].append(found)
        records.write(record, folder / "gpu-run.json")
    record["finished"] = True
    records.write(record, folder / "gpu-run.json")
    bad = [s["name"] for s in record["stages"] if s["status"] in (FAILED, TIMED_OUT)]
    print(f"results: {folder}" + (f"; not well: {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


def run(stage: Stage, left: float, folder: Path, dry: bool) -> dict[str, Any]:
    """Do it within its limit, and say what became of it."""
    seconds = int(min(stage.seconds, left))
    reason = stage.missing()
    if reason is None and seconds < LEAST:
        reason = f"{max(0, seconds)} s were left"
    if reason is not None:
        return _outcome(stage, LEFT_OUT, reason)
    started = time.monotonic()
    log = folder / "gpu.log"
    begin = log.stat().st_size
    with log.open("ab") as output:
        command = stage.command(seconds, folder)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(stage, dry),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status, reason = _wait(process, seconds)
    text = log.read_bytes()[begin:].decode(errors="replace")
    found = _outcome(stage, status, reason, round(time.monotonic() - started, 1))
    return {**found, "command": command, "output": text[-TAIL:]}


def _wait(process: "subprocess.Popen[bytes]", seconds: int) -> tuple[str, str]:
    """Until it is done; when its time is over, it and what it started end."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return TIMED_OUT, f"after {seconds} s"
    return (OK, "") if code == 0 else (FAILED, f"exit status {code}")


def _outcome(stage: Stage, status: str, reason: str, seconds: float = 0.0) -> dict[str, Any]:
    return {"name": stage.name, "status": status, "reason": reason, "seconds": seconds}


def environment(stage: Stage, dry: bool) -> dict[str, str]:
    """This process's, the checkout importable; a dry run interprets Triton's kernels."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    dry_run = {"LRFUSED_GPU_DRY_RUN": "cpu", "TRITON_INTERPRET": "1"} if dry else {}
    return {
        **{name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "TQDM_DISABLE": "1",
        **dry_run,
        **stage.variables,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    about = __doc__.splitlines()[0] if __doc__ else None
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--dry-run", action="store_true", help="what can be done without a GPU")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"for all ({SECONDS})")
    parser.add_argument("--only", type=lambda text: text.split(","), help="stages, by name")
    options = parser.parse_args(arguments)
    known = [stage.name for stage in stages(options.dry_run)]
    for name in options.only or []:
        if name not in known:
            parser.error(f"--only: must be of {', '.join(known)}, got {name!r}")
    return options


if __name__ == "__main__":
    sys.exit(main())
