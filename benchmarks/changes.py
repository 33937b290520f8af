"""Time steps in which something changes, many groups, and the ends of steps of small tensors.

    python benchmarks/changes.py [--quick] [--against CHECKOUT] [--rows late-8000,lr-tensor-1000]

A side is lrfused, torch fused, or lrfused of another checkout, built in place; each is a process
and they take turns. Writes changes.json to benchmarks/results, or to the folder RESULTS_DIR. Exits
with 1 if a side gave a wrong result or failed.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import change_table
import records
import result_files
from change_rows import ROWS, Row
from change_sides import OURS, TORCH
from change_table import BEFORE
from checkouts import commit_of
from device import Cpu
from runner import FAILED, OK, WRONG, Measurement
from timing import Spread
from workers import Worker

SCRIPT = Path(__file__).with_name("change_worker.py")
ROUNDS, QUICK_ROUNDS, LEAST = 11, 3, 3
SECONDS, QUICK_SECONDS = 12.0, 3.0  # after which a row takes no further round


class Side:
    """A worker, and what it found of one row."""

    def __init__(self, root: Path, name: str):
        self.name = name
        self._worker = Worker(SCRIPT, (str(root), OURS if name == BEFORE else name))
        self.status, self.reason = OK, ""

    def begin(self, row: Row) -> None:
        self.status, self.reason = OK, ""
        self.rounds: dict[str, list[float]] = {}
        self.ask("begin", row)

    def turn(self, row: Row, counts: bool) -> None:
        for part, seconds in (self.ask("turn", row) or {}).items():
            if counts:
                self.rounds.setdefault(part, []).append(seconds)

    def ask(self, what: str, row: Row) -> Any:
        """Its answer; nothing is asked of one that has failed before."""
        if self.status != OK:
            return None
        said = self._worker.ask(f"{what} {row.name}")
        for status in (WRONG, FAILED):
            if status in said:
                self.status, self.reason = status, said[status]
        return said.get("answer")

    def found(self, row: Row) -> list[Measurement]:
        """A measurement of every part, in the form of bench.py's."""
        deviation = self.ask("check", row)
        what = {"workload": row.name, "dtype": "float32", "provider": self.name}
        if self.status != OK:
            said = {"status": self.status, "reason": self.reason}
            return [{**what, "form": part, **said} for part in row.parts]
        return [
            {
                **what,
                "form": part,
                "status": OK,
                "deviation": deviation,
                "seconds": {**asdict(Spread.of(rounds)), "rounds": rounds},
            }
            for part, rounds in self.rounds.items()
        ]

    def end(self) -> None:
        self._worker.end()


def measure(row: Row, sides: Sequence[Side], rounds: int, seconds: float) -> list[Measurement]:
    """All sides in turns; the first round warms up and does not count."""
    for side in sides:
        side.begin(row)
    order, generator = list(sides), random.Random(0)
    end = time.monotonic() + seconds
    for index in range(rounds + 1):
        if index > LEAST and time.monotonic() > end:
            break
        generator.shuffle(order)
        for side in order:
            side.turn(row, counts=index > 0)
    return [found for side in sides for found in side.found(row)]


def run(options: argparse.Namespace) -> records.Record:
    """All rows, each written as soon as it is done."""
    kept = {name: getattr(options, name) for name in ("quick", "rows", "rounds", "seconds")}
    record = records.new(Cpu(), kept)
    record["other"] = commit_of(options.against) if options.against else None
    roots = {OURS: result_files.ROOT, TORCH: result_files.ROOT}
    if options.against:
        roots[BEFORE] = options.against.resolve()
    sides = [Side(root, name) for name, root in roots.items()]
    try:
        for name in options.rows:
            started = time.monotonic()
            found = measure(ROWS[name], sides, options.rounds, options.seconds)
            records.add(record, found, {})
            result_files.write(record, options.out)
            print(f"{ROWS[name].title}: {time.monotonic() - started:.0f} s", flush=True)
    finally:
        for side in sides:
            side.end()
    record["finished"] = True
    result_files.write(record, options.out)
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    record = run(options)
    print(change_table.plain(record))
    print(f"results: {options.out}")
    failures = records.failures(record)
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; what is not given depends on ``--quick``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in a minute")
    parser.add_argument("--against", type=Path, help="the root of another checkout")
    parser.add_argument("--rows", type=_rows, help=f"of {','.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help=f"at most ({ROUNDS}, quick {QUICK_ROUNDS})")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"no further round of a row after these ({SECONDS:g}, quick {QUICK_SECONDS:g}), "
        f"but {LEAST} rounds at least",
    )
    parser.add_argument("--out", type=Path, help="JSON file (benchmarks/results/changes.json)")
    options = parser.parse_args(arguments)
    quick = options.quick
    defaults = {
        "rows": [name for name, row in ROWS.items() if row.is_quick or not quick],
        "rounds": QUICK_ROUNDS if quick else ROUNDS,
        "seconds": QUICK_SECONDS if quick else SECONDS,
        "out": result_files.folder() / ("changes-quick.json" if quick else "changes.json"),
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _rows(text: str) -> list[str]:
    for name in (names := text.split(",")):
        if name not in ROWS:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(ROWS)}, got {name!r}")
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    sys.exit(main())
