"""Runs of several sittings, each a process that adds its rounds to the result file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from lib.benchmarks import tiny  # noqa: F401

# isort: split
import bench
import render
import sittings
import table
from providers import PROVIDERS

KEY = ("few", "float32", "clip")
ARGUMENTS = ("--workloads", "few", "--providers", "fused,deepspeed,lrfused", "--dtype", "float32")


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the tiny work, only the clip is in the docs."""
    monkeypatch.setitem(table.TARGETS, "cpu", {(KEY, "torch"): 1.0})


def sit(number: int, *more: str) -> int:
    options = ("--forms", "step,clip", "--rounds", "2", "--sittings", "2")
    return bench.main([*ARGUMENTS, *options, "--sitting", str(number), *more])


def test_a_later_sitting_adds_its_rounds_where_the_docs_look(tmp_path, capsys):
    assert sit(1) == 0
    first = json.loads((tmp_path / "cpu.json").read_text())
    assert first["finished"] is False and "times as long" not in capsys.readouterr().out
    assert sit(2) == 0
    record = json.loads((tmp_path / "cpu.json").read_text())
    assert record["finished"] is True and record["sittings"] == 2
    assert record["date"] == first["date"] and record["settings"]["sittings"] == 2
    assert "few, float32: clip + step + schedule" in capsys.readouterr().out
    pairs = list(zip(first["measurements"], record["measurements"], strict=True))
    assert [m["provider"] for _, m in pairs] == ["fused", "deepspeed", "lrfused"] * 2
    for before, after in pairs:
        if before["form"] == "step" or before["status"] == "not installed":
            assert after == before
            continue
        rounds = after["seconds"]["rounds"]
        assert len(rounds) == 4 and rounds[:2] == before["seconds"]["rounds"]
        assert min(rounds) <= after["seconds"]["lower"] <= after["seconds"]["upper"] <= max(rounds)
        assert len(after["stream"]) == 2 and after["deviation"] == before["deviation"]
        moved = 1e-9 * after["bytes_per_parameter"] * after["parameters"]
        assert after["gigabytes_per_second"] == pytest.approx(moved / after["seconds"]["median"])
    assert len(record["stream"]["copy"]) == 2 * 2 + 2


def test_who_fails_later_has_failed(tmp_path, monkeypatch, capsys):
    assert sit(1) == 0

    def fails(params, form, settings):
        raise OSError("no more")

    monkeypatch.setitem(PROVIDERS, "lrfused", replace(PROVIDERS["lrfused"], build=fails))
    assert sit(2) == 1
    assert "FAILED: lrfused, few float32 clip: failed: OSError: no more" in capsys.readouterr().err
    record = json.loads((tmp_path / "cpu.json").read_text())
    assert table.compare(record, KEY, "torch").problem == "lrfused: failed"


def test_sittings_of_different_runs_are_not_mixed(tmp_path, monkeypatch):
    assert sit(1) == 0
    with pytest.raises(ValueError, match="must have 2 sittings, has 1"):
        sit(3)
    monkeypatch.setattr(sittings.result_files, "commit", lambda: {"hash": "0", "dirty": False})
    with pytest.raises(ValueError, match="must be of the present commit"):
        sit(2)


def test_each_sitting_is_a_process_until_one_fails(monkeypatch, tmp_path):
    script = tmp_path / "bench.py"
    script.write_text(
        "import pathlib, sys\n"
        f"with pathlib.Path({str(tmp_path / 'seen')!r}).open('a') as seen:\n"
        "    print(*sys.argv[1:], file=seen)\n"
        "sys.exit(3 if sys.argv[-1] == '2' and '--fail' in sys.argv else 0)\n"
    )
    monkeypatch.setattr(sittings, "SCRIPT", script)
    assert bench.main(["--rounds", "4"]) == 0
    lines = (tmp_path / "seen").read_text().splitlines()
    assert lines == [f"--rounds 4 --sitting {i}" for i in (1, 2, 3, 4)]
    assert sittings.hold(["--fail"], 3) == 3
    assert (tmp_path / "seen").read_text().splitlines()[4:] == [
        "--fail --sitting 1",
        "--fail --sitting 2",
    ]


def test_a_whole_run_in_processes(tmp_path):
    """The real script, on the smallest real work."""
    out = tmp_path / "x.json"
    arguments = ["--workloads", "tiny148", "--providers", "fused,lrfused", "--forms", "clip"]
    arguments += ["--rounds", "1", "--sittings", "2", "--out", str(out)]
    assert sittings.hold(arguments, 2) == 0
    record = json.loads(out.read_text())
    assert record["finished"] is True
    assert [len(m["seconds"]["rounds"]) for m in record["measurements"]] == [2, 2]


@pytest.mark.parametrize(("times", "status"), [((3.0, 4.0, 5.0), 0), ((2.0, 2.0, 2.0), 1)])
def test_says_whether_a_run_is_reproduced(tmp_path, capsys, times, status):
    assert sit(1) == 0 and sit(2) == 0
    path, later = tmp_path / "cpu.json", tmp_path / "later.json"

    def with_ratios(ratios: tuple[float, ...], to: Path) -> None:
        record = json.loads(path.read_text())
        for m in record["measurements"]:
            if m["status"] == "ok" and m["form"] == "clip":
                own = m["provider"] == "lrfused"
                m["seconds"]["rounds"] = [1.0] * 3 if own else list(ratios)
        to.write_text(json.dumps(record))

    with_ratios((3.5, 4.5, 5.5), path)
    with_ratios(times, later)
    assert render.main(["--table", str(path), "--against", str(later)]) == status
    again = "4.00 (3.20 to 4.80)   within" if status == 0 else "2.00 (2.00 to 2.00)   OUTSIDE"
    assert f"4.50 (3.70 to 5.30)   {again}" in capsys.readouterr().out
