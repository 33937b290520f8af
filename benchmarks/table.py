"""The comparisons of a result file: how many times as long torch takes, beside the targets."""

from collections.abc import Iterator
from dataclasses import dataclass

import records
from providers import PROVIDERS, TORCH
from records import Key, Record
from timing import Spread, ratio
from workloads import FORMS, WORKLOADS

OWN = "lrfused"
BEST_OF_TORCH = "torch"
NONE = "–"

# What a pipeline of torch, or another provider's, has to take at least, in our times.
TARGETS: dict[str, dict[tuple[Key, str], float]] = {
    "cpu": {
        (("gpt2", "float32", "clip"), BEST_OF_TORCH): 1.4,
        (("gpt2", "float32", "unscale"), BEST_OF_TORCH): 1.6,
        (("gpt2", "bfloat16", "step"), BEST_OF_TORCH): 1.45,
        (("gpt2", "bfloat16", "clip"), BEST_OF_TORCH): 1.55,
        (("small", "float32", "clip"), BEST_OF_TORCH): 3.5,
        (("tiny148", "float32", "clip"), BEST_OF_TORCH): 25.0,
        (("tiny148-fresh", "float32", "clip"), BEST_OF_TORCH): 15.0,
        # By bytes 1.5 at most: 48 against 32. With the clip alone it is 1.25, for the step 1.
        (("gpt2", "float32", "unscale"), "deepspeed"): 1.4,
    }
}


@dataclass(frozen=True)
class Row:
    """One comparison; ``problem`` stands where there is nothing to compare."""

    key: Key
    against: str
    target: float | None
    other: str = ""
    ratio: Spread | None = None
    seconds: float = 0.0
    own_seconds: float = 0.0
    of_stream: float = 0.0  # bandwidth of lrfused, in that of the memory during the case
    problem: str = ""


def title(key: Key) -> str:
    workload, dtype, form = key
    return f"{WORKLOADS[workload].title}, {dtype}: {FORMS[form].title}"


def compare(record: Record, key: Key, against: str) -> Row:
    """lrfused against a provider, or against the fastest of torch's."""
    target = TARGETS.get(record["device"], {}).get((key, against))
    case = records.by_case(record).get(key, {})
    names = TORCH if against == BEST_OF_TORCH else (against,)
    own, others = records.timed(case, [OWN]), records.timed(case, names)
    if not own or not others:
        absent = [OWN] if not own else names
        states = {case[name]["status"] if name in case else "not run" for name in absent}
        return Row(key, against, target, problem=f"{against if own else OWN}: {', '.join(states)}")
    best = min(others, key=lambda name: others[name]["seconds"]["median"])
    return Row(
        key,
        against,
        target,
        best,
        ratio(others[best]["seconds"]["rounds"], own[OWN]["seconds"]["rounds"]),
        others[best]["seconds"]["median"],
        own[OWN]["seconds"]["median"],
        own[OWN]["gigabytes_per_second"] / own[OWN]["stream"],
    )


def targeted(record: Record) -> list[Row]:
    """The comparisons that have a target."""
    pairs = TARGETS.get(record["device"], {})
    return [compare(record, key, against) for key, against in pairs]


def everything(record: Record) -> Iterator[Row]:
    """Every case against torch and against whoever else was timed."""
    for key, case in records.by_case(record).items():
        yield compare(record, key, BEST_OF_TORCH)
        for name in case:
            if name not in (*TORCH, OWN) and records.timed(case, [name]):
                yield compare(record, key, name)


HEADINGS = ("work", "against", "its time", "lrfused", "times as long", "target", "of STREAM")


def cells(row: Row) -> tuple[str, ...]:
    target = NONE if row.target is None else f"≥ {row.target:g}"
    if row.ratio is None:
        return (title(row.key), row.problem, NONE, NONE, NONE, target, NONE)
    return (
        title(row.key),
        PROVIDERS[row.other].title,
        duration(row.seconds),
        duration(row.own_seconds),
        f"{row.ratio.median:.2f} ({row.ratio.lower:.2f} to {row.ratio.upper:.2f})",
        target,
        f"{row.of_stream:.0%}" if in_memory(row.key) else NONE,
    )


def in_memory(key: Key) -> bool:
    """Bandwidth of the memory says something about work that is far beyond the caches."""
    return WORKLOADS[key[0]].parameters > 50_000_000


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def markdown(rows: list[Row]) -> str:
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    lines += [cells(row) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(rows: list[Row]) -> str:
    """The same in columns, for a terminal."""
    lines = [HEADINGS, *(cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
