"""benchmarks/walk_times.py, which `make compat` runs on every supported torch."""

import json

import torch
from lib.benchmarks import CPU  # noqa: F401 (finds benchmarks/)
from lib.runs import needs_cpp

# isort: split
import walk_times

from lrfused import native

pytestmark = needs_cpp


def test_one_line_says_how_it_walks_and_how_long_it_takes(monkeypatch, capsys):
    torch.set_num_threads(2)
    monkeypatch.setattr("sys.argv", ["walk_times.py", "--seconds", "0"])
    monkeypatch.setattr(walk_times, "CASES", {"tensors148_fresh": "tiny148-fresh"})
    monkeypatch.setattr(walk_times, "LEAST", 1)
    walk_times.main()
    found = json.loads(capsys.readouterr().out)
    assert found.pop("walk") == native.tensor_readers[0]
    times = found.pop("tensors148_fresh")
    assert not found and times.keys() == {"ratio", "torch_us", "lrfused_us"}
    assert all(value > 0 for value in times.values())
    assert torch.get_num_threads() == 1
