"""Time lrfused of this checkout beside that of another one, for changes that must cost nothing.

    python benchmarks/checkouts.py OTHER [--rounds 41] [--workloads gpt2,small] [--out FILE]

OTHER is the root of another checkout, built in place. For each case two processes hold the same
tensors, one with either package, and take turns: whatever else the machine does slows both. Writes
checkouts.json to benchmarks/results, or to the folder RESULTS_DIR, and prints the median of the
ratios, round by round: above 1 this checkout is quicker.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import result_files
from workers import Worker, use_package

SCRIPT = Path(__file__)
CASES = (
    ("gpt2", "float32", "clip"),
    ("gpt2", "bfloat16", "clip"),
    ("gpt2", "float32", "unscale"),
    ("small", "float32", "clip"),
    ("tiny148", "float32", "clip"),
    ("tiny148-fresh", "float32", "clip"),
    ("tiny1000", "float32", "clip"),
)
ROUNDS = 41


def work(root: Path, case: tuple[str, str, str], threads: int) -> None:
    """What a worker does: a turn for every line that comes in."""
    use_package(root)
    import torch
    from data import Data, Settings
    from device import Cpu
    from providers import PROVIDERS
    from timing import Contestant
    from workloads import DTYPES, FORMS, Case, find

    torch.set_num_threads(threads)
    settings, (name, dtype, form) = Settings(), case
    data = Data(Case(find(name), DTYPES[dtype], FORMS[form]), settings)
    params = data.parameters()
    pipeline = PROVIDERS["lrfused"].build(params, FORMS[form], settings)
    contestant, device = Contestant(pipeline.step, params, data), Cpu()
    contestant.take_step(device)
    for _ in sys.stdin:
        contestant.take_turn(device)
        print(contestant.turns[-1], flush=True)


def measure(other: Path, case: tuple[str, str, str], rounds: int, threads: int) -> dict[str, Any]:
    """Both checkouts over one case; which of them is first changes from round to round."""
    from timing import Spread, ratio

    told = ("--worker", *case, "--threads", str(threads))
    workers = [Worker(SCRIPT, (str(root), *told)) for root in (other, result_files.ROOT)]
    turns: list[list[float]] = [[], []]
    try:
        for index in range(rounds + 1):
            for place in (0, 1) if index % 2 else (1, 0):
                seconds = workers[place].ask("turn")
                if index:  # the first round warms up
                    turns[place].append(seconds)
    finally:
        for worker in workers:
            worker.end()
    return {
        "workload": case[0],
        "dtype": case[1],
        "form": case[2],
        "other_seconds": asdict(Spread.of(turns[0])),
        "seconds": asdict(Spread.of(turns[1])),
        "ratio": asdict(ratio(*turns)),
    }


def commit_of(root: Path) -> str:
    """The commit of another checkout."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run(options: argparse.Namespace) -> int:
    """All cases, each written as soon as it is done."""
    import machine

    record = {
        **result_files.head(),
        "other": commit_of(options.checkout),
        "machine": machine.describe(),
        "load": machine.load(),
        "versions": machine.versions(),
        "settings": {"rounds": options.rounds, "threads": options.threads},
        "measurements": [],
    }
    for case in [c for c in CASES if c[0] in options.workloads]:
        found = measure(options.checkout.resolve(), case, options.rounds, options.threads)
        record["measurements"].append(found)
        result_files.write(record, options.out)
        spread = found["ratio"]
        places = f"{spread['median']:.3f} ({spread['lower']:.3f} to {spread['upper']:.3f})"
        print(f"{' '.join(case):<30} {places}", flush=True)
    record["finished"] = True
    result_files.write(record, options.out)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path, help="the root of another checkout")
    parser.add_argument("--workloads", type=lambda text: text.split(","), help="(all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=result_files.folder() / "checkouts.json")
    options = parser.parse_args(arguments)
    options.workloads = options.workloads or [case[0] for case in CASES]
    if options.worker:
        work(options.checkout, tuple(options.worker), options.threads)
        return 0
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
