"""All that is done with a GPU while there is one: build, test, sanitise, benchmark.

    make gpu [PYTHON=python3] [ARGS="--seconds 500 --only 'CUDA equality,CUDA times'"]
    make gpu PYTHON=.venv/bin/python ARGS=--dry-run

Each stage of ``gpu_stages.py`` is a process of its own with a limit. Installs nothing, needs no
network; this process itself needs nothing but Python. Results are written as they come, to
benchmarks/results or the folder RESULTS_DIR: gpu-run.json (what became of each stage),
gpu-facts.json (the machine), files of tests and times, gpu.log (all output). Exits with 1 if a
stage failed.

A dry run does what a machine without a GPU can: on tiny tensors of the CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import processes
import result_files
from gpu_stage import FAILED, LEFT_OUT, NO_TIME, OK, TIMED_OUT, Facts, Run, Stage, Verdict
from gpu_stages import STAGES

WHOLE, PART = "gpu-run.json", "gpu-run-part.json"  # some stages leave the record of all alone
SECONDS = 525  # for everything
PATIENCE = 10  # times as long: a dry run on two cores, which may be busy
TAIL = 3000  # characters of its output that stay in gpu-run.json
BAD_LINES = 30  # of a stage that is not well are printed
ALWAYS = ("versions", "backends")  # other stages need their facts


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.dry_run:  # nothing that stays
        os.environ.setdefault("RESULTS_DIR", str(result_files.ROOT / "build" / "gpu-dry-run"))
    file = PART if options.only else WHOLE
    folder, end = result_files.folder(), time.monotonic() + options.seconds
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("gpu.log", "gpu-facts.json"):
        (folder / name).unlink(missing_ok=True)
    record: dict[str, Any] = {
        **result_files.head(),
        "kind": "run",
        "dry_run": options.dry_run,
        "seconds": options.seconds,
        "stages": [],
    }
    chosen = [s for s in STAGES if not options.only or s.name in (*options.only, *ALWAYS)]
    for number, stage in enumerate(chosen):
        left = end - time.monotonic()
        found = do(stage, seconds_of(stage, chosen[number + 1 :], left, options), folder, options)
        report(stage, found)
        record["stages"].append(found)
        result_files.write(record, folder / file)
    record["finished"] = True
    result_files.write(record, folder / file)
    bad = [s["name"] for s in record["stages"] if s["status"] in (FAILED, TIMED_OUT)]
    late = [s["name"] for s in record["stages"] if s["status"] == NO_TIME]
    print(f"results: {folder}" + (f"; not well: {', '.join(bad)}" if bad else ""))
    if late:
        print(f"no time was left: a run with ARGS=\"--only '{','.join(late)}'\" takes these alone")
    return 1 if bad else 0


def seconds_of(
    stage: Stage, later: Sequence[Stage], left: float, options: argparse.Namespace
) -> int:
    """Its limit, if so much is left; with the spare time, all but the later stages' limits."""
    patience = PATIENCE if options.dry_run else 1
    limit = float(patience * stage.seconds)
    if stage.takes_spare:
        limit = max(limit, left - patience * sum(other.seconds for other in later))
    return int(min(limit, left))


def do(stage: Stage, seconds: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run it within its limit, and say what became of it."""
    facts = read_facts(folder, options.dry_run)
    why_not = verdict_before(stage, seconds, facts)
    if why_not is not None:
        return _outcome(stage, why_not)
    if stage.result is not None:  # an earlier run's says nothing of this one
        (folder / stage.result).unlink(missing_ok=True)
    started = time.monotonic()
    command = stage.command(Run(seconds, folder, options.dry_run))
    with (folder / "gpu.log").open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            command,
            cwd=result_files.ROOT,
            env=environment(stage, facts),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        verdict = _wait(process, seconds)
    verdict = verdict_after(stage, verdict, folder, options.dry_run)
    text = (folder / "gpu.log").read_bytes()[begin:].decode(errors="replace")
    text = result_files.without_places(text)  # before it is cut
    found = _outcome(stage, verdict, round(time.monotonic() - started, 1))
    return {**found, "limit": seconds, "command": command, "output": text[-TAIL:]}


def read_facts(folder: Path, dry: bool) -> Facts:
    """What is known of the machine so far."""
    file = folder / "gpu-facts.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    return {**known, "dry_run": dry}


def verdict_before(stage: Stage, seconds: int, facts: Facts) -> Verdict | None:
    """Why it is not begun, if so."""
    if facts["dry_run"] and stage.dry is not None:
        return LEFT_OUT, stage.dry
    if seconds < stage.least:
        return NO_TIME, f"{max(0, seconds)} s were left, {stage.least} are needed"
    return stage.needs(facts)


def verdict_after(stage: Stage, verdict: Verdict, folder: Path, dry: bool) -> Verdict:
    """What a result is worth if the process was well, else which tests were running."""
    if stage.result is None:
        return verdict
    file = folder / stage.result
    record = json.loads(file.read_text()) if file.exists() else {}
    if verdict[0] != OK:
        running = ", ".join(record.get("running", []))
        return (verdict[0], f"{verdict[1]}, in {running}") if running else verdict
    reason = stage.check(record, dry) if record else f"it did not write {stage.result}"
    return (FAILED, reason) if reason else verdict


def report(stage: Stage, found: dict[str, Any]) -> None:
    """A line, and the last ones of its own where somebody wants to read them."""
    print(f"{stage.name}: {found['status']} {found['reason']} ({found['seconds']} s)", flush=True)
    is_bad = found["status"] in (FAILED, TIMED_OUT)
    count = max(stage.shows, BAD_LINES if is_bad else 0)
    lines = found.get("output", "").rstrip().splitlines()
    print("".join(f"    {line}\n" for line in lines[-count:] if count), end="", flush=True)


def _wait(process: "subprocess.Popen[bytes]", seconds: int) -> Verdict:
    """Until it is done, or its time is over."""
    code = processes.wait(process, seconds)
    if code is None:
        return TIMED_OUT, f"after {seconds} s"
    return (OK, "") if code == 0 else (FAILED, f"exit status {code}")


def _outcome(stage: Stage, verdict: Verdict, seconds: float = 0.0) -> dict[str, Any]:
    status, reason = verdict
    return {"name": stage.name, "status": status, "reason": reason, "seconds": seconds}


def environment(stage: Stage, facts: Facts) -> dict[str, str]:
    """This process's, the checkout importable; a dry run interprets Triton's kernels."""
    paths = [str(result_files.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    present = {"LRFUSED_GPU_DRY_RUN": "1", "TRITON_INTERPRET": "1"} if facts["dry_run"] else {}
    if facts.get("gpu"):  # the module is built for this chip only: each takes half a minute
        present["LRFUSED_CUDA_ARCH_LIST"] = f"{facts['gpu']['capability']}+PTX"
    return {
        **{name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "TQDM_DISABLE": "1",
        "LRFUSED_BUILD": "required",
        **present,
        **stage.variables,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    about = __doc__.splitlines()[0] if __doc__ else None
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--dry-run", action="store_true", help="what can be done without a GPU")
    parser.add_argument("--seconds", type=int, help=f"for all ({SECONDS})")
    parser.add_argument("--only", type=lambda text: text.split(","), help="stages, by name")
    options = parser.parse_args(arguments)
    if options.seconds is None:
        options.seconds = SECONDS * (PATIENCE if options.dry_run else 1)
    known = [stage.name for stage in STAGES]
    for name in options.only or []:
        if name not in known:
            parser.error(f"--only: must be of {', '.join(known)}, got {name!r}")
    return options


if __name__ == "__main__":
    sys.exit(main())
