"""Time the whole step of an optimizer: torch's, DeepSpeed's and lrfused's, side by side.

    python benchmarks/bench.py [--quick] [--workloads gpt2,small] [--providers fused,lrfused]
    python benchmarks/bench.py --device gpu [--seconds 100] [--quick]

On a CPU it sits down several times, each a process of its own. Writes a JSON file to
benchmarks/results, or to the folder RESULTS_DIR. Exits with 1 if a provider gave a wrong result or
failed. benchmarks/README.md says what is measured.
"""

import argparse
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import records
import result_files
import rider_table
import sittings
import torch
from data import Settings
from device import Device
from providers import with_plain
from runner import left_out, run_case
from stream import Stream
from suites import SUITES
from tqdm import tqdm
from workloads import DTYPES, FORMS, select

ROUNDS, QUICK_ROUNDS = 9, 3
SITTING_ROUNDS = 5  # of several
QUICK_FORMS = ("clip",)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.sitting is None and options.sittings > 1:
        return sittings.hold(sys.argv[1:] if arguments is None else arguments, options.sittings)
    options.sitting = options.sitting or 1
    torch.set_num_threads(options.threads)
    record = run(options, SUITES[options.device].device())
    if record["finished"]:
        rider_table.show(record)
        print(f"results: {options.out}")
    failures = records.failures(record)
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


def run(options: argparse.Namespace, device: Device) -> records.Record:
    """All cases of a sitting, each written as soon as it is done."""
    suite, again = SUITES[options.device], options.sitting > 1
    cases = select(options.workloads, options.dtype, options.forms, suite.workloads)
    record = sittings.take_up(options) if again else records.new(device, _settings(options))
    if again:
        cases = sittings.cases_again(record, cases)
    stream, clock = Stream(device), Clock(options.seconds)
    chosen = [suite.providers[name] for name in options.providers]
    contestants = [with_plain(chosen, case.workload.rider) for case in cases]
    total = sum(map(len, contestants)) * (1 + options.rounds)
    with tqdm(total=total, unit="turn") as bar:
        for case in cases:
            bar.set_description(f"{options.sitting} of {options.sittings}: {' '.join(case.key)}")
            names = options.providers
            if again:
                names = sittings.providers_again(record, case, names)
            chosen = [suite.providers[name] for name in names]
            providers = with_plain(chosen, case.workload.rider)
            if clock.is_late():
                records.add(record, left_out(case, providers, "no time was left"), {})
                continue
            measurements, rates = run_case(
                case, providers, options.rounds, stream, Settings(), _ticker(bar), again
            )
            records.add(record, measurements, rates)
            result_files.write(record, options.out)
    record["finished"] = options.sitting == options.sittings
    result_files.write(record, options.out)
    return record


class Clock:
    """Knows when another case may take longer than there is time."""

    def __init__(self, seconds: float | None):
        self.end = None if seconds is None else time.monotonic() + seconds
        self.last, self.longest = time.monotonic(), 0.0

    def is_late(self) -> bool:
        """Asked before every case."""
        now = time.monotonic()
        self.longest, self.last = max(self.longest, now - self.last), now
        return self.end is not None and now + self.longest > self.end


def _ticker(bar: "tqdm[Any]") -> Callable[[str], None]:
    def tick(name: str) -> None:
        bar.set_postfix_str(name, refresh=False)
        bar.update()

    return tick


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    kept = ("quick", "workloads", "providers", "dtype", "forms", "rounds", "sittings", "threads")
    return {**{name: getattr(options, name) for name in kept}, "optimizer": asdict(Settings())}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; what is not given depends on ``--device`` and ``--quick``."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--device", choices=SUITES, default="cpu", help="(cpu)")
    suite = SUITES[first.parse_known_args(arguments)[0].device]
    workloads, providers = suite.workloads, suite.providers
    about = __doc__.splitlines()[0] if __doc__ else None
    parser = argparse.ArgumentParser(description=about, parents=[first])
    parser.add_argument("--quick", action="store_true", help="a minute or two: less of everything")
    parser.add_argument("--workloads", type=_names(workloads), help=f"of {','.join(workloads)}")
    parser.add_argument("--providers", type=_names(providers), help=f"of {','.join(providers)}")
    parser.add_argument("--dtype", type=_names(DTYPES), help=f"of {','.join(DTYPES)}")
    parser.add_argument("--forms", type=_names(FORMS), help=f"of {','.join(FORMS)}")
    rounds = f"({ROUNDS}, quick {QUICK_ROUNDS}, {SITTING_ROUNDS} in each of several sittings)"
    parser.add_argument("--rounds", type=_positive, help=rounds)
    parser.add_argument("--sittings", type=_positive, help=f"({suite.sittings}, quick 1)")
    parser.add_argument("--sitting", type=_positive, help="only this one")
    parser.add_argument(
        "--threads", type=_positive, default=torch.get_num_threads(), help="(as many as torch)"
    )
    parser.add_argument("--seconds", type=_positive, help="begin nothing that may take longer")
    parser.add_argument("--out", type=Path, help="JSON file (benchmarks/results/DEVICE.json)")
    options = parser.parse_args(arguments)
    quick, name = options.quick, suite.device.name
    options.sittings = options.sittings or (1 if quick else suite.sittings)
    defaults = {
        "workloads": list(suite.quick_workloads if quick else workloads),
        "providers": list(suite.quick_providers if quick else providers),
        "dtype": list(DTYPES),
        "forms": list(QUICK_FORMS if quick else FORMS),
        "rounds": QUICK_ROUNDS if quick else SITTING_ROUNDS if options.sittings > 1 else ROUNDS,
        "out": result_files.folder() / (f"{name}-quick.json" if quick else f"{name}.json"),
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    """Parses names with commas between them; they keep the order in which they are given."""

    def parse_names(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}, got {name!r}")
        return list(dict.fromkeys(names))

    return parse_names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
