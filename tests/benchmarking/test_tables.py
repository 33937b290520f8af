"""The README's tables and figures: what they say, and that they come from the result files."""

import json
from pathlib import Path

import lib.benchmarks  # noqa: F401
import pytest

# isort: split
import figure
import records
import render
import result_files
import table
from providers import PROVIDERS

README = "# Title\n\n<!-- benchmark:cpu -->\nold\n<!-- end -->\n\nThe end.\n"


def measured(provider: str, key: records.Key, rounds: list[float]) -> dict:
    found = dict(zip(("workload", "dtype", "form"), key, strict=True))
    median = sorted(rounds)[len(rounds) // 2]
    times = {"median": median, "lower": min(rounds), "upper": max(rounds), "rounds": rounds}
    return {
        **found,
        "provider": provider,
        "status": "ok",
        "seconds": times,
        "gigabytes_per_second": 1.0 / median,
        "stream": [9.0, 10.0, 12.0],
    }


@pytest.fixture
def record() -> dict:
    """A finished run in which torch's best takes twice as long everywhere."""
    slowness = {"loop": 9.0, "foreach": 7.0, "fused": 2.0, "compile": 3.0, "deepspeed": 1.5}
    keys = dict.fromkeys(key for key, _ in table.TARGETS["cpu"])
    found = []
    for key in keys:
        for name in PROVIDERS:
            rounds = [slowness.get(name, 1.0) * t for t in (0.1, 0.2, 0.4)]
            found.append(measured(name, key, rounds))
    return {
        "schema": result_files.SCHEMA,
        "finished": True,
        "sittings": 2,
        "device": "cpu",
        "date": "2001-02-03T04:05:06+00:00",
        "commit": {"hash": "0123456789abcdef", "dirty": False},
        "machine": {"processor": "a processor", "threads": 3},
        "versions": {"torch": "9.9", "python": "3.99", "compiler": "a compiler"},
        "settings": {"quick": False, "rounds": 3},
        "stream": {"copy": [9.0, 10.0, 12.0], "triad": [8.0, 9.0, 9.0]},
        "measurements": found,
    }


@pytest.fixture
def place(tmp_path: Path, record: dict) -> Path:
    """A README with a section and the result file that it shows."""
    (tmp_path / "README.md").write_text(README)
    save(tmp_path, record)
    return tmp_path


def save(place: Path, record: dict) -> None:
    (place / "results").mkdir(exist_ok=True)
    (place / "results" / "cpu.json").write_text(json.dumps(record))


def rendering(place: Path, *options: str) -> int:
    where = ["--readme", str(place / "README.md"), "--results", str(place / "results")]
    return render.main([*where, *options])


def test_the_readme_is_what_its_result_files_say():
    for page in render.PAGES:
        assert render.check(page, result_files.FOLDER) == []


def test_a_comparison_is_with_torchs_fastest_round_by_round(record):
    key = ("gpt2", "float32", "clip")
    case = records.by_case(record)[key]
    case["fused"]["seconds"]["rounds"] = [0.1, 0.4, 1.2]  # 1, 2 and 3 times lrfused's
    row = table.compare(record, key, "torch")
    assert (row.other, row.target) == ("fused", 1.4)
    assert (row.ratio.lower, row.ratio.median, row.ratio.upper) == pytest.approx((1.2, 2.0, 2.8))
    cells = table.cells(row)
    assert cells == (
        "GPT-2 124M, 148 tensors, float32: clip + step + schedule",
        "torch fused",
        "400 ms",
        "200 ms",
        "2.00 (1.20 to 2.80)",
        "≥ 1.4",
        "50%",
    )
    case["compile"]["seconds"]["median"] = 0.3
    assert table.compare(record, key, "torch").other == "compile"


def test_nothing_to_compare_is_said(record):
    case = records.by_case(record)[("gpt2", "float32", "unscale")]
    case["deepspeed"].update(status="not installed", reason="not installed")
    row = table.compare(record, ("gpt2", "float32", "unscale"), "deepspeed")
    assert row.ratio is None and row.problem == "deepspeed: not installed"
    assert "deepspeed: not installed" in table.markdown([row])
    case["lrfused"]["status"] = "wrong"
    assert table.compare(record, row.key, "torch").problem == "lrfused: wrong"
    assert (
        table.compare(record, ("large", "float32", "clip"), "torch").problem == "lrfused: not run"
    )


def test_all_targets_have_a_row(record):
    rows = table.targeted(record)
    assert [row.target for row in rows] == list(table.TARGETS["cpu"].values())
    assert all(row.ratio is not None for row in rows)
    assert {row.against for row in table.everything(record)} == {"torch", "deepspeed"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.0, "12 s"), (0.0123456, "12.3 ms"), (4.5e-5, "45 µs")]
)
def test_durations(seconds, text):
    assert table.duration(seconds) == text


def test_writes_table_and_figure_and_nothing_else(place):
    assert rendering(place) == 0
    text = (place / "README.md").read_text()
    assert text.startswith("# Title\n\n<!-- benchmark:cpu -->\n| work |")
    assert text.endswith("(docs/benchmark-cpu.svg)\n<!-- end -->\n\nThe end.\n")
    assert text.count("2.00 (2.00 to 2.00)") == 7 and "1.50 (1.50 to 1.50)" in text
    assert (
        "commit 0123456789, 2001-02-03. Medians of 2 sittings of 3 rounds" in text
        and "STREAM 10.0 GB/s" in text
    )
    drawn = (place / "docs" / "benchmark-cpu.svg").read_bytes()
    assert (
        drawn.startswith(b"<?xml") and figure.digest(place / "results/cpu.json").encode() in drawn
    )
    assert rendering(place) == 0  # once more: the same
    assert (place / "README.md").read_text() == text
    assert (place / "docs" / "benchmark-cpu.svg").read_bytes() == drawn


def test_a_section_of_riders(place, record):
    """Bytes by the formulas, times of the file, the load; and no figure."""
    key = ("gpt2-masks", "float32", "clip")
    for name, rounds in (("fused", 0.6), ("plain-fused", 0.4), ("lrfused", 0.2)):
        record["measurements"].append(measured(name, key, [rounds] * 3))
    record["measurements"].append(measured("plain-lrfused", key, [0.21] * 3))
    for found in record["measurements"][-4:]:
        found["bytes_per_parameter"] = 40 + (24 if found["provider"] == "fused" else 0)
    save(place, {**record, "load": 1.25})
    readme = place / "README.md"
    readme.write_text("A `<!-- riders:x -->` is\n\n<!-- riders:cpu -->\n<!-- end -->\n")
    assert rendering(place) == 0 and rendering(place, "--check") == 0
    text = readme.read_text()
    assert "| masks | float32 | 24 | " in text and "Load at the start: 1.2 cores." in text
    assert "| 64 B, 600 ms | 24 B, 200 ms (200 ms to 200 ms) | 40 B, 200 ms | 0 B, -10 ms " in text
    assert "| 3.00 (3.00 to 3.00) |" in text and not (place / "docs").exists()
    readme.write_text(text.replace("64 B", "65 B"))
    assert rendering(place, "--check") == 1


def test_check_finds_what_does_not_match(place, record, capsys):
    assert rendering(place, "--check") == 1
    assert rendering(place) == 0 and rendering(place, "--check") == 0
    readme, drawn = place / "README.md", place / "docs" / "benchmark-cpu.svg"
    text = readme.read_text()
    readme.write_text(text.replace("2.00", "2.10", 1))
    assert rendering(place, "--check") == 1
    assert "not that of its result file" in capsys.readouterr().err
    readme.write_text(text)
    drawn.unlink()
    assert rendering(place, "--check") == 1
    assert "not drawn from cpu.json" in capsys.readouterr().err
    assert rendering(place) == 0
    record["measurements"][0]["seconds"]["rounds"][0] *= 2  # changes the figure, not the table
    save(place, record)
    assert rendering(place, "--check") == 1
    assert rendering(place) == 0 and rendering(place, "--check") == 0


UNFIT = {
    "the run was cut off": {"finished": False},
    "it is a quick run": {"settings": {"quick": True, "rounds": 3}},
    "it does not belong to a commit": {"commit": {"hash": "0123", "dirty": True}},
}


@pytest.mark.parametrize("reason", UNFIT)
def test_what_is_not_fit_to_be_shown_is_refused(place, record, reason, capsys):
    save(place, {**record, **UNFIT[reason]})
    assert rendering(place) == 1
    assert f"FAILED: cpu.json: may not be shown: {reason}" in capsys.readouterr().err
    assert (place / "README.md").read_text() == README


def test_wrong_results_missing_files_and_open_sections_are_refused(place, record, capsys):
    record["measurements"][3].update(status="wrong", reason="p is off")
    save(place, record)
    assert rendering(place) == 1
    assert "compile, gpt2 float32 clip: wrong: p is off" in capsys.readouterr().err
    (place / "README.md").write_text("<!-- benchmark:gpu -->\n<!-- end -->\n")
    assert rendering(place) == 1
    assert "gpu.json: must be in results/, it is not there" in capsys.readouterr().err
    (place / "README.md").write_text("<!-- benchmark:cpu -->\n")
    assert rendering(place) == 1
    assert "must have its <!-- end -->" in capsys.readouterr().err
    (place / "results" / "cpu.json").write_text("{}")
    with pytest.raises(ValueError, match="must be a result file with schema 2"):
        records.read(place / "results" / "cpu.json")


def test_prints_all_that_is_in_a_file(place, capsys):
    assert rendering(place, "--table", str(place / "results" / "cpu.json")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("work ") and len(lines) == 1 + 2 * 7
