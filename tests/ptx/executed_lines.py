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

FOLDER = "LRFUSED_TEST_PTX_SEEN"  # the variable that names it


@dataclass
class Seen:
    """Of one kernel: lines that were executed, lines that there are, by module; their sources."""

    done: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    lines: dict[str, set[int]] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)

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
            kernel.paths.add(path)
            kernel.lines[path] = {line for lines in one["lines"] for line in lines}
            executed = (
                lines for flag, lines in zip(one["seen"], one["lines"], strict=True) if flag
            )
            kernel.done[path] |= {line for lines in executed for line in lines}
    return dict(sorted(kernels.items()))


def report(kernels: dict[str, Seen]) -> Iterator[str]:
    """A line for each kernel."""
    for name, kernel in kernels.items():
        done, count = kernel.counts
        yield f"{name}: {done} of {count} instructions of PTX executed ({done / count:.1%})"


def idle(kernel: Seen) -> dict[str, int]:
    """How many were not, by the place of the source that they come from, the most first."""
    found: dict[str, int] = defaultdict(int)
    for path, lines in kernel.lines.items():
        places = json.loads(Path(path).with_suffix(".json").read_text())["places"]
        for line in lines - kernel.done[path]:
            found[places.get(str(line), "?")] += 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def main(folders: Iterable[str]) -> None:
    for folder in folders:
        kernels = summed(Path(folder))
        for line in report(kernels):
            print(line)
        for name, kernel in kernels.items():
            for place, count in list(idle(kernel).items())[:40]:
                print(f"    {name}: {count} at {place}")


if __name__ == "__main__":
    main(sys.argv[1:])
