"""What a rider adds to a step, in bytes and in time, beside the passes that it replaces."""

from dataclasses import dataclass
from statistics import median

import records
from providers import PLAIN
from records import Key, Record
from rider_costs import RIDERS
from table import OWN, duration, everything, in_columns, in_markdown, owns, plain, spread, title
from timing import Spread, ratio
from workloads import CLIP, DTYPES, find

TORCH = "fused"
BYTES_HEADINGS = ("rider", "weights", "torch adds", "which is", "lrfused adds", "which is")
HEADINGS = ("work", "torch", "of that its passes", "lrfused", "of that the rider", "times as long")


@dataclass(frozen=True)
class Side:
    """One provider with the rider: the bytes and the times, and what the rider is of them."""

    moved: float
    added: float
    seconds: float
    added_seconds: Spread
    rounds: list[float]


@dataclass(frozen=True)
class Row:
    key: Key
    own: str
    torch: Side
    lrfused: Side

    @property
    def ratio(self) -> Spread:
        return ratio(self.torch.rounds, self.lrfused.rounds)


def rows(record: Record) -> list[Row]:
    """The cases with a rider of which all that is compared has times."""
    found = []
    for key, case in records.by_case(record).items():
        if not find(key[0]).rider:
            continue
        for own in owns(record):
            sides = _side(case, TORCH), _side(case, own)
            if sides[0] and sides[1]:
                found.append(Row(key, own, sides[0], sides[1]))
    return found


def _side(case: dict[str, records.Measurement], name: str) -> Side | None:
    with_times = records.with_times(case, (name, PLAIN + name))
    if len(with_times) < 2:
        return None
    found, plain = with_times[name], with_times[PLAIN + name]
    rounds, without = found["seconds"]["rounds"], plain["seconds"]["rounds"]
    moved = found["bytes_per_parameter"]
    added = Spread.of([a - b for a, b in zip(rounds, without, strict=True)])
    return Side(moved, moved - plain["bytes_per_parameter"], median(rounds), added, rounds)


def cells(row: Row) -> tuple[str, ...]:
    backend = row.own.removeprefix(OWN).removeprefix("-")
    times = [cell for side in (row.torch, row.lrfused) for cell in _times(side)]
    times[2] += f" ({backend})" if backend else ""
    return (title(row.key), *times, spread(row.ratio))


def _times(side: Side) -> tuple[str, str]:
    """The step, and the rider: bytes and time, in brackets where eight of ten rounds lie."""
    added = side.added_seconds
    low, middle, high = (_signed(s) for s in (added.lower, added.median, added.upper))
    return (
        f"{side.moved:g} B, {duration(side.seconds)}",
        f"{side.added:g} B, {middle} ({low} to {high})",
    )


def _signed(seconds: float) -> str:
    """Below 0 where noise is more than the difference."""
    return f"-{duration(-seconds)}" if seconds < 0 else duration(seconds)


def bytes_markdown() -> str:
    """By the formulas, of a step with a clip: they need no run."""
    lines = [
        (
            rider.title,
            name,
            f"{rider.torch_bytes(CLIP, dtype):g}",
            rider.torch_how,
            f"{rider.own_bytes(CLIP, dtype):g}",
            rider.own_how,
        )
        for rider in RIDERS.values()
        for name, dtype in DTYPES.items()
    ]
    return in_markdown([BYTES_HEADINGS, *lines])


def times_markdown(record: Record) -> str:
    """Of a run's cases."""
    return in_markdown([HEADINGS, *map(cells, rows(record))])


def show(record: Record) -> None:
    """Print all comparisons of a run, and what riders add."""
    print(plain(list(everything(record))))
    ridden = rows(record)
    if ridden:
        print(f"\n{in_columns([HEADINGS, *map(cells, ridden)])}")
