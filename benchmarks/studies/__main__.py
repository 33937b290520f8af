"""Run the studies, and write their results, pictures and page: `make studies`.

    PYTHONPATH=benchmarks python -m studies [--quick] [--only NAME ...] [--device cpu] [--jobs 2]

Writes benchmarks/studies/results, docs/studies.md and docs/studies; with --quick, which takes four
seeds of each, all of it below build/studies. A run that was cut off goes on where it stopped when
the command is given again. Exits with 1 if a study raised or, but for --quick, decided nothing, and
with 130 if it was interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import result_files
import torch
from tqdm import tqdm

from studies.common import page, records
from studies.common.records import PUBLISHED, Places, Unfinished
from studies.common.running import Done, Task, run_all
from studies.common.statistics import UNDECIDED
from studies.common.study import NAMES, Study

QUICK_SEEDS = 4
QUICK_FOLDER = records.ROOT / "build" / "studies"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    places = places_of(options)
    problems = []
    if options.page:
        records.check_again(places)
    else:
        try:
            problems = run(options, places)
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on with what is left", file=sys.stderr)
            return 130
    page.write(places)
    print(f"page: {places.page}")
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def places_of(options: argparse.Namespace) -> Places:
    if options.out is not None:
        return records.below(options.out)
    return records.below(QUICK_FOLDER) if options.quick else PUBLISHED


def run(options: argparse.Namespace, places: Places) -> list[str]:
    """Run what is not done yet; returns what is wrong."""
    unfinished, problems = Unfinished(places), []
    quick = QUICK_SEEDS if options.quick else None
    studies = {name: Study(name) for name in options.only}
    tasks = [
        Task(name, tuple(study.seeds(quick)), options.device) for name, study in studies.items()
    ]
    tasks = [task for task in tasks if not unfinished.has(studies[task.name], task)]
    progress = tqdm(
        total=len(studies), initial=len(studies) - len(tasks), unit="study", desc="studies"
    )
    with progress:
        for task, done in run_all(tasks, options.jobs):
            if isinstance(done, Done):
                problems += _publish(studies[task.name], done, places, options.quick)
                unfinished.note(studies[task.name], task)
            else:
                problems.append(f"{task.name}: {type(done).__name__}: {done}")
            progress.update()
    if not problems:
        unfinished.end(options.only)
    _tell(places, options.only)
    return problems


def _publish(study: Study, done: Done, places: Places, quick: bool) -> list[str]:
    """Write the result at once; returns what is wrong with it."""
    record = records.record(study, done)
    result_files.write(record, records.path(places, study.name))
    undecided = record["verdict"] == UNDECIDED and not quick
    return [f"{study.name}: undecided after {len(done.task.seeds)} seeds"] if undecided else []


def _tell(places: Places, names: Sequence[str]) -> None:
    """The verdicts, and what they cost."""
    found = {name: r for name, r in records.read(places).items() if name in names}
    for name, record in found.items():
        cost = f"{len(record['seeds'])} seeds, {record['cpu_seconds']:.0f} CPU s"
        print(f"{record['number']:>3} {name:<22} {record['verdict']:<17} {cost}")
    print(f"{sum(r['cpu_seconds'] for r in found.values()) / 60:.1f} CPU minutes in all")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="studies", description="Run the studies.")
    parser.add_argument("--quick", action="store_true", help="four seeds each, into build/studies")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--device", type=_device, default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument("--jobs", type=_jobs, default=2, help="studies at a time (2)")
    parser.add_argument("--out", type=Path, help="write everything below this folder")
    parser.add_argument(
        "--page", action="store_true", help="run nothing: check the stored numbers, write the page"
    )
    return parser.parse_args(arguments)


def _device(text: str) -> str:
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} can not be used: {error}") from None
    return text


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
