"""Write the numbers of result files into the README, and draw their figures.

    python benchmarks/render.py             write both README.md and docs/benchmark-NAME.svg
    python benchmarks/render.py --check     exit with 1 if they are not what the files say
    python benchmarks/render.py --table benchmarks/results/cpu.json     print all that is in it
    python benchmarks/render.py --table OLD.json --against NEW.json     is it reproduced?

A section of a README begins with ``<!-- benchmark:NAME -->`` and ends with ``<!-- end -->``;
what is between them comes from benchmarks/results/NAME.json. ``riders`` in place of ``benchmark``
shows what riders add, ``changes`` the most important rows of changes.py, and ``all-changes`` all of
them, without a figure.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import change_table
import figure
import records
import result_files
import rider_table
import table
from records import Record
from stream import bandwidth

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
KINDS = "benchmark|riders|changes|all-changes"
SECTION = re.compile(
    rf"^<!-- (?P<kind>{KINDS}):(?P<name>[\w-]+) -->\n.*?<!-- end -->",
    re.DOTALL | re.MULTILINE,
)
BEGIN = re.compile(rf"^<!-- ({KINDS}):", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.table:
        record = records.read(options.table)
        if options.against:
            return _compare(record, records.read(options.against))
        print_all(record)
        return 0
    try:
        if not options.check:
            for page in options.readme:
                write(page, options.results)
            return 0
        problems = [p for page in options.readme for p in check(page, options.results)]
    except ValueError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def print_all(record: Record) -> None:
    """Every comparison of a file, of bench.py or of changes.py."""
    if "rows" in record["settings"]:
        print(change_table.plain(record))
    else:
        rider_table.show(record)


def _compare(record: Record, again: Record) -> int:
    """Print both runs' ratios; 1 if one is not within the first run's spread."""
    found = list(table.reproduced(record, again))
    for row, repeated, is_within in found:
        assert row.ratio is not None and repeated.ratio is not None
        verdict = "within" if is_within else "OUTSIDE"
        ratios = f"{table.spread(row.ratio)}   {table.spread(repeated.ratio)}"
        print(f"{table.title(row.key)}, against {row.against}: {ratios}   {verdict}")
    return 0 if found and all(is_within for _, _, is_within in found) else 1


def write(readme: Path, results: Path) -> None:
    """
    Raises:
        ValueError: a section's result file is missing, or not fit to be shown.
    """
    text = readme.read_text(encoding="utf-8")
    readme.write_text(rendered(text, results), encoding="utf-8")
    for name in names(text):
        file = results / f"{name}.json"
        figure.draw(records.read(file), file, figure_file(readme, name))


def check(readme: Path, results: Path) -> list[str]:
    """What is not as ``write`` would leave it."""
    text = readme.read_text(encoding="utf-8")
    problems = []
    if text != rendered(text, results):
        problems.append(f"{readme.name}: a table is not that of its result file; render it again")
    for name in names(text):
        drawn, wanted = figure_file(readme, name), figure.digest(results / f"{name}.json")
        if not drawn.exists() or wanted not in drawn.read_text(encoding="utf-8"):
            problems.append(f"{drawn.name}: not drawn from {name}.json; render it again")
    return problems


def names(text: str) -> list[str]:
    """The result files of which a README shows a figure."""
    return [s["name"] for s in SECTION.finditer(text) if s["kind"] == "benchmark"]


def rendered(text: str, results: Path) -> str:
    """The README with its sections filled."""
    if len(BEGIN.findall(text)) != len(SECTION.findall(text)):
        raise ValueError("README: every <!-- benchmark:NAME --> must have its <!-- end -->")
    return SECTION.sub(lambda s: SECTIONS[s["kind"]](s["name"], results), text)


def figure_file(readme: Path, name: str) -> Path:
    return readme.parent / "docs" / f"benchmark-{name}.svg"


def _section(name: str, results: Path) -> str:
    record = publishable(results / f"{name}.json")
    parts = [
        f"<!-- benchmark:{name} -->",
        table.markdown(table.targeted(record)),
        "",
        caption(record),
        "",
        f"![times in units of lrfused's](docs/benchmark-{name}.svg)",
        "<!-- end -->",
    ]
    return "\n".join(parts)


def _riders(name: str, results: Path) -> str:
    record = publishable(results / f"{name}.json")
    tables = (rider_table.bytes_markdown(), rider_table.times_markdown(record))
    load = f"{caption(record)} Load at the start: {record['load']:.1f} cores."
    body = "\n\n".join((*tables, load))
    return f"<!-- riders:{name} -->\n{body}\n<!-- end -->"


def _changes(name: str, results: Path) -> str:
    return _changed("changes", name, results, short=True)


def _all_changes(name: str, results: Path) -> str:
    return _changed("all-changes", name, results, short=False)


def _changed(kind: str, name: str, results: Path, short: bool) -> str:
    record = publishable(results / f"{name}.json")
    body = f"{change_table.markdown(record, short)}\n\n{change_table.caption(record)}"
    return f"<!-- {kind}:{name} -->\n{body}\n<!-- end -->"


SECTIONS = {
    "benchmark": _section,
    "riders": _riders,
    "changes": _changes,
    "all-changes": _all_changes,
}


def publishable(file: Path) -> Record:
    """A record whose numbers may stand in the docs.

    Raises:
        ValueError: it is missing, cut off, quick, wrong, or does not belong to a commit.
    """
    if not file.exists():
        raise ValueError(f"{file.name}: must be in {file.parent.name}/, it is not there")
    record = records.read(file)
    reasons = records.unpublishable(record)
    if reasons:
        raise ValueError(f"{file.name}: may not be shown: {'; '.join(reasons)}")
    return record


def caption(record: Record) -> str:
    machine, versions = record["machine"], record["versions"]
    if "gpu" in machine:
        place = f"{machine['gpu']}, copy"
        tools = f"CUDA {versions['cuda']}, Triton {versions['triton']}"
    else:
        place = f"{machine['processor']}, {machine['threads']} threads, STREAM"
        tools = versions["compiler"]
    count = record["sittings"]
    times = f"{count} sitting{'s' if count > 1 else ''} of {record['settings']['rounds']}"
    return (
        f"{place} {bandwidth(record['stream']):.1f} GB/s; torch {versions['torch']}, python "
        f"{versions['python']}, {tools}; commit {record['commit']['hash'][:10]}, "
        f"{record['date'][:10]}. Medians of {times} rounds in which the "
        "providers take turns; in brackets where eight of ten rounds lie."
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing, compare")
    parser.add_argument("--table", type=Path, help="print all comparisons of a result file")
    parser.add_argument("--against", type=Path, help="with --table: a later run to compare it with")
    parser.add_argument("--readme", type=Path, nargs="+", default=PAGES)
    parser.add_argument("--results", type=Path, default=result_files.FOLDER, help="folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
