"""The tables of benchmarks/changes.py, from a small record, and the sections that show them."""

import json

import lib.benchmarks  # noqa: F401 (finds benchmarks/)
import pytest

# isort: split
import change_table
import render
import result_files
from change_rows import ROWS
from change_sides import OURS, TORCH
from changed_steps import CHANGED, USUAL
from many_groups import PARTS


def measured(row: str, part: str, side: str, *rounds: float) -> dict:
    median = sorted(rounds)[len(rounds) // 2]
    times = {"median": median, "lower": min(rounds), "upper": max(rounds), "rounds": list(rounds)}
    what = {"workload": row, "dtype": "float32", "form": part, "provider": side}
    return {**what, "status": "ok", "deviation": 0.0, "seconds": times}


@pytest.fixture
def record() -> dict:
    found = []
    for row in ("late-8000", "late-500", "tiny148"):
        found += [measured(row, USUAL, OURS, 0.1, 0.2, 0.3)]
        found += [measured(row, CHANGED, OURS, 0.2, 0.3, 0.3), measured(row, USUAL, TORCH, 1, 1, 1)]
        found += [measured(row, USUAL, "before", 0.2, 0.2, 0.2)]
        if row != "tiny148":
            found += [measured(row, CHANGED, TORCH, 3, 2, 2)]
            found += [measured(row, CHANGED, "before", 20, 20, 20)]
    for part in PARTS:
        for side, seconds in ((TORCH, 1.0), (OURS, 0.5), ("before", 7.0)):
            found.append(measured("groups-2000-numbers", part, side, seconds))
    return {
        "schema": result_files.SCHEMA,
        "finished": True,
        "date": "2001-02-03T04:05:06+00:00",
        "commit": {"hash": "0123456789abcdef", "dirty": False},
        "other": "fedcba9876543210",
        "machine": {"processor": "a processor", "threads": 3},
        "load": 0.25,
        "versions": {"torch": "9.9", "python": "3.99", "compiler": "a compiler"},
        "settings": {"quick": False, "rows": [], "rounds": 3, "seconds": 12.0},
        "measurements": found,
    }


def test_tables_compare_round_by_round(record):
    steps, groups, ends = change_table.tables(record, short=True)
    times = ("200 ms", "300 ms", "1.50 (1.10 to 1.90)", "≤ 2", "20 s (× 100)", "2 s (× 2)")
    assert steps[1:] == [(ROWS["late-8000"].title, *times)]
    assert groups[2][1:] == ("first step", "1 s", "500 ms", "-500 ms", "7 s", "6 s")
    assert len(groups) == 1 + len(PARTS)
    assert ends[1][1:4] == ("1 s", "200 ms", "5.00 (3.67 to 9.00)")
    assert ends[1][4:] == ("200 ms", "1.00 (0.73 to 1.80)", "300 ms", "1.50 (1.10 to 1.90)")
    every = list(change_table.tables(record, short=False))
    assert [len(lines) for lines in every] == [3, 1 + len(PARTS), 2]


def test_what_was_not_measured_is_a_dash(record):
    kept = [m for m in record["measurements"] if m["provider"] == OURS]
    alone = {**record, "measurements": kept, "other": None}
    steps, groups, ends = change_table.tables(alone, short=True)
    assert steps[1][-2:] == ("–", "–") and groups[1][2:] == ("–", "500 ms", "–", "–", "–")
    assert ends[1][1:6] == ("–", "200 ms", "–", "–", "–")
    assert "before" not in change_table.caption(alone)


def test_sections_of_changes(tmp_path, record):
    (tmp_path / "results").mkdir()
    file = tmp_path / "results" / "changes.json"
    readme = tmp_path / "README.md"
    readme.write_text(
        "<!-- changes:changes -->\n<!-- end -->\n\n<!-- all-changes:changes -->\n<!-- end -->\n"
    )
    where = ["--readme", str(readme), "--results", str(tmp_path / "results")]
    file.write_text(json.dumps({**record, "finished": False}))
    assert render.main(where) == 1
    file.write_text(json.dumps(record))
    assert render.main(where) == 0 and render.main([*where, "--check"]) == 0
    text = readme.read_text()
    assert text.count(f"| {ROWS['late-8000'].title} |") == 2
    assert text.count(f"| {ROWS['late-500'].title} |") == 1
    said = "commit 0123456789; before: commit fedcba9876, 2001-02-03. Medians of 3 rounds"
    assert text.count(said) == 2 and "3 rounds at most and 1 at least, in" in text
    readme.write_text(text.replace("× 100", "× 10", 1))
    assert render.main([*where, "--check"]) == 1


def test_prints_all_that_is_in_a_file(tmp_path, record, capsys):
    (tmp_path / "changes.json").write_text(json.dumps(record))
    assert render.main(["--table", str(tmp_path / "changes.json")]) == 0
    assert ROWS["late-500"].title in capsys.readouterr().out
