"""Tables of changes.json: steps with a change, many groups, ends of steps of small tensors."""

from collections.abc import Iterator

import records
from change_rows import ENDS, ROWS, Row
from change_sides import OURS, TORCH
from changed_steps import CHANGED, USUAL
from many_groups import PARTS
from records import Record
from table import NONE, duration, in_columns, in_markdown, spread
from timing import Spread, ratio

BEFORE = "before"  # lrfused of another checkout
MOST = 2.0  # usual steps that a step with a change may take
Line = tuple[str, ...]

STEPS: Line = ("work", "usual", "with it", "times as long", "target", "before", "torch fused")
GROUPS: Line = ("work", "of it", "torch fused", "lrfused", "lrfused adds", "before", "before added")
ENDINGS: Line = (
    "clip + step + schedule",
    "torch fused",
    "lrfused",
    "torch / lrfused",
    "before",
    "before / lrfused",
    "writing gradients",
    "writing / not",
)


def tables(record: Record, short: bool) -> Iterator[list[Line]]:
    """Those that have a line, with their headings."""
    found = dict.fromkeys(measured["workload"] for measured in record["measurements"])
    rows = [ROWS[name] for name in found if ROWS[name].is_short or not short]
    steps = [_step(Times(record, row)) for row in rows if _is_step(row)]
    groups = [line for row in rows if row.parts == PARTS for line in _groups(Times(record, row))]
    endings = [_end(Times(record, row)) for row in rows if row.name in ENDS]
    for headings, lines in ((STEPS, steps), (GROUPS, groups), (ENDINGS, endings)):
        if lines:
            yield [headings, *lines]


def markdown(record: Record, short: bool = False) -> str:
    return "\n\n".join(in_markdown(lines) for lines in tables(record, short))


def plain(record: Record) -> str:
    """The same in columns, for a terminal."""
    return "\n\n".join(in_columns(lines) for lines in tables(record, short=False))


def caption(record: Record) -> str:
    """Where, with what, and how often."""
    versions, settings = record["versions"], record["settings"]
    rounds = f"{settings['rounds']} rounds at most and {_fewest(record)} at least"
    other = f"; before: commit {record['other'][:10]}" if record["other"] else ""
    return (
        f"{record['machine']['processor']}, one thread; torch "
        f"{versions['torch']}, python {versions['python']}, {versions['compiler']}; commit "
        f"{record['commit']['hash'][:10]}{other}, {record['date'][:10]}. Medians of "
        f"{rounds}, in which the sides take turns; in brackets where eight of ten rounds lie. "
        f"Load at the start: {record['load']:.1f} cores."
    )


def _fewest(record: Record) -> int:
    return min(len(m["seconds"]["rounds"]) for m in record["measurements"] if "seconds" in m)


class Times:
    """Of one row: what each side took for each part, and how they compare round by round."""

    def __init__(self, record: Record, row: Row):
        self.row = row
        self._cases = {
            part: records.with_times(
                records.by_case(record).get((row.name, "float32", part), {}), (OURS, TORCH, BEFORE)
            )
            for part in row.parts
        }

    def seconds(self, side: str, part: str) -> str:
        case = self._cases[part]
        return duration(case[side]["seconds"]["median"]) if side in case else NONE

    def ratio(self, side: str, part: str, other: str, of: str) -> Spread | None:
        """How many times as long a side takes for a part as another one for its part."""
        if side not in self._cases[part] or other not in self._cases[of]:
            return None
        both = self._cases[part][side], self._cases[of][other]
        return ratio(*(found["seconds"]["rounds"] for found in both))

    def changed(self, side: str) -> str:
        """A step with a change, and how many of its usual steps that is."""
        times = self.ratio(side, CHANGED, side, USUAL)
        return f"{self.seconds(side, CHANGED)} (× {times.median:.3g})" if times else NONE

    def added(self, side: str, part: str) -> str:
        """What a side takes beyond torch."""
        case = self._cases[part]
        if side not in case or TORCH not in case:
            return NONE
        added = case[side]["seconds"]["median"] - case[TORCH]["seconds"]["median"]
        return f"{'-' if added < 0 else ''}{duration(abs(added))}"


def _is_step(row: Row) -> bool:
    return row.parts != PARTS and row.name not in ENDS


def _step(times: Times) -> Line:
    return (
        times.row.title,
        times.seconds(OURS, USUAL),
        times.seconds(OURS, CHANGED),
        _spread(times.ratio(OURS, CHANGED, OURS, USUAL)),
        f"≤ {MOST:g}",
        times.changed(BEFORE),
        times.changed(TORCH),
    )


def _groups(times: Times) -> Iterator[Line]:
    for part in PARTS:
        yield (
            times.row.title,
            part,
            times.seconds(TORCH, part),
            times.seconds(OURS, part),
            times.added(OURS, part),
            times.seconds(BEFORE, part),
            times.added(BEFORE, part),
        )


def _end(times: Times) -> Line:
    return (
        times.row.title,
        times.seconds(TORCH, USUAL),
        times.seconds(OURS, USUAL),
        _spread(times.ratio(TORCH, USUAL, OURS, USUAL)),
        times.seconds(BEFORE, USUAL),
        _spread(times.ratio(BEFORE, USUAL, OURS, USUAL)),
        times.seconds(OURS, CHANGED),
        _spread(times.ratio(OURS, CHANGED, OURS, USUAL)),
    )


def _spread(found: Spread | None) -> str:
    return spread(found) if found else NONE
