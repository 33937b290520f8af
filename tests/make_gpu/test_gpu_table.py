"""The table of a GPU's results."""

import json

import pytest
from lib.benchmarks import FEW

# isort: split
import figure
import records
import render
import result_files
import table
from workloads import GPU_WORKLOADS


def measured(provider, key, seconds, stream_rate=1000.0):
    parameters, rounds = GPU_WORKLOADS[key[0]].parameters, [seconds, seconds, seconds]
    return {
        **dict(zip(("workload", "dtype", "form"), key, strict=True)),
        "provider": provider,
        "status": "ok",
        "parameters": parameters,
        "seconds": {"median": seconds, "lower": seconds, "upper": seconds, "rounds": rounds},
        "bytes_per_parameter": 28,
        "gigabytes_per_second": 28e-9 * parameters / seconds,
        "stream": [stream_rate],
    }


@pytest.fixture
def record():
    """A run in which CUDA takes 1 ms, Triton 2 ms, torch 6 ms."""
    keys = dict.fromkeys(key for key, _ in table.TARGETS["gpu"])
    times = {"fused": 6e-3, "lrfused-cuda": 1e-3, "lrfused-triton": 2e-3}
    return {
        "schema": result_files.SCHEMA,
        "finished": True,
        "sittings": 1,
        "device": "gpu",
        "date": "2001-02-03T04:05:06+00:00",
        "commit": {"hash": "0123456789abcdef", "dirty": False},
        "machine": {"processor": "a processor", "threads": 3, "gpu": "a GPU"},
        "versions": {
            "torch": "9.9",
            "python": "3.99",
            "compiler": "c",
            "cuda": "13",
            "triton": "8",
        },
        "settings": {"quick": False, "rounds": 3},
        "stream": {"copy": [1000.0, 1000.0]},
        "measurements": [measured(p, key, t) for key in keys for p, t in times.items()],
    }


def test_every_backend_has_its_row(record):
    rows = table.targeted(record)
    assert len(rows) == 2 * len(table.TARGETS["gpu"])
    of_torch = {row.own: row for row in rows if row.against == "torch"}
    assert of_torch["lrfused-cuda"].ratio.median == pytest.approx(6.0)
    assert of_torch["lrfused-triton"].ratio.median == pytest.approx(3.0)
    assert {table.cells(row)[3] for row in rows} == {"1 ms (cuda)", "2 ms (triton)"}


def test_a_step_is_compared_with_a_copy_of_its_bytes(record):
    """124.4M parameters of 28 bytes at 1000 GB/s: 3.48 ms."""
    key = ("gpt2", "float32", "step")
    row = table.compare(record, key, "copy", "lrfused-triton")
    assert row.ratio.median == pytest.approx(1.742, rel=1e-3) and row.target == 0.92
    assert table.cells(row)[1:3] == ("copy bandwidth", "3.48 ms")
    records.by_case(record)[key]["lrfused-triton"].update(status="wrong")
    assert table.compare(record, key, "copy", "lrfused-triton").problem == "lrfused-triton: wrong"


def test_a_readme_shows_it(record, tmp_path):
    (tmp_path / "README.md").write_text("<!-- benchmark:gpu -->\n<!-- end -->\n")
    (tmp_path / "gpu.json").write_text(json.dumps(record))
    render.write(tmp_path / "README.md", tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "a GPU, copy 1000.0 GB/s; torch 9.9, python 3.99, CUDA 13, Triton 8; commit" in text
    assert "| 6.00 (6.00 to 6.00) | ≥ 15 |" in text
    drawn = (tmp_path / "docs" / "benchmark-gpu.svg").read_text()
    assert figure.digest(tmp_path / "gpu.json") in drawn
    assert FEW.name not in text
