"""docs/studies.md: of each study the claim, the code, the picture, the numbers and the verdict."""

from collections.abc import Sequence
from pathlib import Path

from . import gallery, plotting
from .records import Places, Record, path, read
from .statistics import AGREEMENT, CLAIM, CONFIDENCE, CONTROL, INSTEAD, POWER, TWO_SIDED, Statement
from .study import NAMES, WARMUP, Study

INTRODUCTION = f"""# Studies

Every subject of two textbook chapters, on warmup and on learning-rate schedules, as a study with
lrfused's own optimizers: `make studies` runs them all, `make studies ARGS=--quick` with four seeds
each, `make studies ARGS="--only clipping"` some. This page is generated from the result files in
`benchmarks/studies/results`; the number in brackets is the chapters' own.

Both arms of a study have the same initial weights, batches and number of steps for a seed. Numbers
are means of the differences by seed with their {CONFIDENCE:.0%} intervals (Student's t). A claim
holds if its whole interval is above the margin; a control, and the agreement of a prediction with a
measurement, if its whole interval is between minus and plus the margin. The smallest effect is the
mean that is seen to be above the margin (of a control: to differ from 0) with a probability of
{POWER:.0%}, given the spread between these seeds. The check of every confirmed study fails if its
two arms are swapped: `make test` shows it for all.
"""
HEAD = "| | effect | 95% interval | margin | smallest effect | holds |\n|---|---|---|---|---|---|"
LABELS = {CLAIM: "", INSTEAD: "*instead:* ", CONTROL: "*control:* ", AGREEMENT: "*agreement:* "}


def write(places: Places) -> None:
    """The page and its pictures, from the results that there are."""
    records = read(places)
    for name, record in records.items():
        study = Study(name)
        description = f"sha256 {study.drawing(record['result'])}"
        plotting.save(study.module.plot(record["result"]), picture(places, name), description)
    gallery.write(records, picture(places, gallery.NAME))
    places.page.write_text(text(records), encoding="utf-8")


def check(places: Places) -> list[str]:
    """What is not as ``write`` would leave it."""
    records, problems = read(places), []
    if not places.page.exists() or places.page.read_text(encoding="utf-8") != text(records):
        problems.append(f"{places.page.name} is not that of the result files")
    for name, record in records.items():
        drawn, wanted = picture(places, name), Study(name).drawing(record["result"])
        if not drawn.exists() or wanted not in drawn.read_text(encoding="utf-8"):
            problems.append(f"{drawn.name} is not drawn from {path(places, name).name}")
    drawn = picture(places, gallery.NAME)
    if not drawn.exists() or gallery.digest(records) not in drawn.read_text(encoding="utf-8"):
        problems.append(f"{drawn.name} is not drawn from the result files")
    return problems


def picture(places: Places, name: str) -> Path:
    return places.pictures / f"{name}.svg"


def text(records: dict[str, Record]) -> str:
    """The whole page."""
    parts = [INTRODUCTION, f"![all studies](studies/{gallery.NAME}.svg)\n", _contents(records)]
    for title, names in (("Warmup", WARMUP), ("Schedules", NAMES[len(WARMUP) :])):
        parts.append(f"## {title}\n")
        parts += [_section(Study(name), records[name]) for name in names if name in records]
    return "\n".join(parts)


def _contents(records: dict[str, Record]) -> str:
    lines = ["| | study | claim | verdict |", "|---|---|---|---|"]
    for name, record in records.items():
        study = Study(name)
        link = f"[{study.subject}](#{anchor(study)})"
        lines.append(f"| {study.number} | {link} | {study.claim} | {record['verdict']} |")
    seconds = sum(record["cpu_seconds"] for record in records.values())
    return "\n".join(lines) + f"\n\nAll of them took {seconds / 60:.0f} CPU minutes.\n"


def anchor(study: Study) -> str:
    """As GitHub makes it of the heading."""
    kept = (c for c in heading(study).lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


def heading(study: Study) -> str:
    return f"{study.number}. {study.subject}"


def _section(study: Study, record: Record) -> str:
    problem = f" [{record['problem']}]" if record["problem"] else ""
    return "\n\n".join(
        (
            f"### {heading(study)}",
            f"*{_sentence(study.claim)}*",
            study.text,
            f"```python\n{study.recipe}\n```",
            f"![{study.claim}](studies/{study.name}.svg)",
            _table([Statement.of(plain) for plain in record["statements"]]),
            f"**{record['verdict'].capitalize()}**{problem}: {len(record['seeds'])} seeds, "
            f"{record['cpu_seconds']:.0f} CPU seconds; torch {record['versions']['torch']}, "
            f"{record['machine']['processor']}, commit {_commit(record)}, {record['date'][:10]}.\n",
        )
    )


def _sentence(text: str) -> str:
    """With a capital letter, unless it begins with a name of code."""
    is_name = "_" in text.split()[0]
    return f"{text if is_name else text[0].upper() + text[1:]}."


def _commit(record: Record) -> str:
    changed = " with changes" if record["commit"]["dirty"] else ""
    return f"{(record['commit']['hash'] or 'unknown')[:10]}{changed}"


def _table(found: Sequence[Statement]) -> str:
    return "\n".join([HEAD, *map(_row, found)])


def _row(statement: Statement) -> str:
    sign = "±" if statement.kind in TWO_SIDED else "> "
    unit = "" if statement.unit == "1" else f" ({statement.unit})"
    text = f"{statement.text}{unit}".replace("|", "\\|")  # which would end the cell
    cells = (
        f"{LABELS[statement.kind]}{text}",
        _number(statement.mean),
        f"{_number(statement.low)} to {_number(statement.high)}",
        f"{sign}{_number(statement.margin)}",
        _number(statement.smallest),
        _holds(statement),
    )
    return f"| {' | '.join(cells)} |"


def _holds(statement: Statement) -> str:
    """Of what fails, an effect that is there but small is told apart from none."""
    small = statement.kind not in TWO_SIDED and 0.0 < statement.low <= statement.margin
    return "yes" if statement.holds else "no: smaller" if small else "no"


def _number(value: float) -> str:
    return f"{value:.3g}"
