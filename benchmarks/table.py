"""The comparisons of a result file: how many times as long torch takes, beside the targets."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import records
from gpu_providers import GPU_PROVIDERS
from providers import PLAIN, PROVIDERS, TORCH
from records import Key, Record
from runner import Measurement
from timing import Spread, ratio
from workloads import FORMS, find

OWN = "lrfused"  # on a GPU with a backend's name behind it
BEST_OF_TORCH = "torch"
COPY = "copy"  # the time in which the device copies as many bytes
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
    },
    "gpu": {
        (("gpt2", "float32", "unscale"), BEST_OF_TORCH): 1.4,
        (("gpt2", "float32", "clip"), BEST_OF_TORCH): 1.2,
        (("gpt2", "bfloat16", "clip"), BEST_OF_TORCH): 1.2,
        (("gpt2", "float32", "step"), COPY): 0.92,
        (("gpt3", "float32", "unscale"), BEST_OF_TORCH): 1.4,
        (("gpt3", "float32", "clip"), BEST_OF_TORCH): 1.2,
        (("gpt3", "bfloat16", "clip"), BEST_OF_TORCH): 1.2,
        (("gpt3", "float32", "step"), COPY): 0.92,
        (("tiny1000", "float32", "clip"), BEST_OF_TORCH): 15.0,
        (("tiny1000-fresh", "float32", "clip"), BEST_OF_TORCH): 10.0,
    },
}
TITLES = {p.name: p.title for p in (*PROVIDERS.values(), *GPU_PROVIDERS.values())}
TITLES[COPY] = "copy bandwidth"


@dataclass(frozen=True)
class Row:
    """One comparison; ``problem`` stands where there is nothing to compare."""

    key: Key
    against: str
    own: str
    target: float | None
    other: str = ""
    ratio: Spread | None = None
    seconds: float = 0.0
    own_seconds: float = 0.0
    of_stream: float = 0.0  # bandwidth of lrfused, in that of the memory during the case
    problem: str = ""


def title(key: Key) -> str:
    workload, dtype, form = key
    return f"{find(workload).title}, {dtype}: {FORMS[form].title}"


def owns(record: Record) -> list[str]:
    """lrfused, or each of its backends that a run has."""
    names = dict.fromkeys(found["provider"] for found in record["measurements"])
    return [name for name in names if name.startswith(OWN)] or [OWN]


def compare(record: Record, key: Key, against: str, own: str = OWN) -> Row:
    """lrfused against a provider, the fastest of torch's, or a copy of as many bytes."""
    target = TARGETS.get(record["device"], {}).get((key, against))
    case = records.by_case(record).get(key, {})
    names = TORCH if against == BEST_OF_TORCH else (against,)
    ours = records.with_times(case, [own]).get(own)
    others = {COPY: _copy(ours)} if ours and against == COPY else records.with_times(case, names)
    if not ours or not others:
        absent = names if ours else [own]
        states = {case[name]["status"] if name in case else "not run" for name in absent}
        problem = f"{against if ours else own}: {', '.join(states)}"
        return Row(key, against, own, target, problem=problem)
    best = min(others, key=lambda name: others[name]["seconds"]["median"])
    return Row(
        key,
        against,
        own,
        target,
        best,
        ratio(others[best]["seconds"]["rounds"], ours["seconds"]["rounds"]),
        others[best]["seconds"]["median"],
        ours["seconds"]["median"],
        ours["gigabytes_per_second"] / median(ours["stream"]),
    )


def _copy(own: Measurement) -> Measurement:
    """As if a copy of the bytes that this provider moves were another provider."""
    moved = own["bytes_per_parameter"] * own["parameters"]
    seconds = 1e-9 * moved / median(own["stream"])
    rounds = [seconds] * len(own["seconds"]["rounds"])
    return {"seconds": {"median": seconds, "rounds": rounds}}


def targeted(record: Record) -> list[Row]:
    """The comparisons that have a target."""
    pairs = TARGETS.get(record["device"], {})
    return [compare(record, *pair, own) for pair in pairs for own in owns(record)]


def reproduced(record: Record, again: Record) -> Iterator[tuple[Row, Row, bool]]:
    """What has a target in both runs, and whether the second median lies in the first's spread."""
    for row, repeated in zip(targeted(record), targeted(again), strict=True):
        first, second = row.ratio, repeated.ratio
        if first is not None and second is not None:
            yield row, repeated, first.lower <= second.median <= first.upper


def everything(record: Record) -> Iterator[Row]:
    """Every case against torch and against whoever else was timed."""
    names = owns(record)
    for key, case in records.by_case(record).items():
        for own in names:
            # Where torch has no such optimizer, a copy of as many bytes is all there is.
            torchs = records.with_times(case, TORCH)
            yield compare(record, key, BEST_OF_TORCH if torchs else COPY, own)
            others = [name for name in case if name not in (*TORCH, *names)]
            for name in others:
                if not name.startswith(PLAIN) and records.with_times(case, [name]):
                    yield compare(record, key, name, own)


HEADINGS = ("work", "against", "its time", "lrfused", "times as long", "target", "of bandwidth")


def cells(row: Row) -> tuple[str, ...]:
    target = NONE if row.target is None else f"≥ {row.target:g}"
    if row.ratio is None:
        return (title(row.key), row.problem, NONE, NONE, NONE, target, NONE)
    backend = row.own.removeprefix(OWN).removeprefix("-")
    return (
        title(row.key),
        TITLES[row.other],
        duration(row.seconds),
        duration(row.own_seconds) + (f" ({backend})" if backend else ""),
        spread(row.ratio),
        target,
        f"{row.of_stream:.0%}" if in_memory(row.key) else NONE,
    )


def in_memory(key: Key) -> bool:
    """Bandwidth of the memory says something about work that is far beyond the caches."""
    return find(key[0]).parameters > 50_000_000


def spread(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.lower:.2f} to {ratio.upper:.2f})"


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def markdown(rows: list[Row]) -> str:
    return in_markdown([HEADINGS, *map(cells, rows)])


def plain(rows: list[Row]) -> str:
    """The same in columns, for a terminal."""
    return in_columns([HEADINGS, *map(cells, rows)])


def in_markdown(lines: list[tuple[str, ...]]) -> str:
    """The first line has the headings."""
    lines = [lines[0], ("---",) * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def in_columns(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
