"""How many instructions of each kernel's PTX the tests have executed at least once.

Every process of a run of tests leaves what it has seen in a folder; the one that started the others
sums it up at the end.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAIN = "sm_90"  # over which the suites run
SHOWN = 40  # lines of a source; a run of few tests has left out more
FOLDER = "LRFUSED_TEST_PTX_SEEN"  # the variable that names it


@dataclass
class Seen:
    """Of one kernel: lines that were executed, lines that there are, by module; their sources."""

    done: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    lines: dict[str, set[int]] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[int, int]:
        return sum(map(len, self.done.values())), sum(map(len, self.lines.values()))


def leave() -> None:
    """What this process has seen, if it has translated anything."""
    machine = sys.modules.get("ptx.machine")
    if FOLDER not in os.environ or machine is None:
        return
    found = [
        {"kernel": one.label, "path": str(one.path), "seen": one.flags(), "lines": one.counters}
        for one in machine.loaded()
        if one.label
    ]
    target = Path(os.environ[FOLDER]) / f"{os.getpid()}.json"
    target.write_text(json.dumps(found))


def summed(folder: Path) -> dict[str, Seen]:
    """By kernel."""
    kernels: dict[str, Seen] = defaultdict(Seen)
    for file in folder.glob("*.json"):
        for one in json.loads(file.read_text()):
            kernel, path = kernels[one["kernel"]], one["path"]
            kernel.lines[path] = {line for lines in one["lines"] for line in lines}
            executed = (
                lines for flag, lines in zip(one["seen"], one["lines"], strict=True) if flag
            )
            kernel.done[path] |= {line for lines in executed for line in lines}
    return dict(sorted(kernels.items()))


def report(kernels: dict[str, Seen]) -> Iterator[str]:
    """A line for each kernel; then what no kernel of a backend has executed at all.

    Compilers make many copies of a line: of those that were idle most were executed in another.
    Architectures beside the main one run what they have of their own.
    """
    for name, kernel in kernels.items():
        done, count = kernel.counts
        yield f"{name}: {done} of {count} instructions of PTX executed ({done / count:.1%})"
    for main in dict.fromkeys(name.rpartition(" ")[0] for name in kernels):
        if main.endswith(MAIN):
            idle = never([kernel for name, kernel in kernels.items() if name.startswith(main)])
            shown = ", ".join(list(idle)[:SHOWN]) + (" ..." if len(idle) > SHOWN else "")
            yield f"{main}: lines of source of which no copy was executed: {len(idle)} {shown}"


def never(kernels: Iterable[Seen]) -> dict[str, int]:
    """Lines of the source of which no instruction was executed, and how many they have."""
    executed: set[str] = set()
    idle: dict[str, int] = defaultdict(int)
    for kernel in kernels:
        for path, lines in kernel.lines.items():
            places = json.loads(Path(path).with_suffix(".json").read_text())["places"]
            executed |= {places[str(line)] for line in kernel.done[path]}
            for line in lines - kernel.done[path]:
                idle[places[str(line)]] += 1
    return {place: count for place, count in idle.items() if place and place not in executed}
