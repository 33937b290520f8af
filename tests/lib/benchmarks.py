"""What the tests of the benchmark harness share: its modules on the path, tiny work."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import data  # noqa: E402
import device  # noqa: E402
import runner  # noqa: E402
import stream  # noqa: E402
import workloads  # noqa: E402
from data import Settings  # noqa: E402
from providers import PROVIDERS, Provider  # noqa: E402
from workloads import FORMS, Case, Workload  # noqa: E402

FEW = Workload("few", "few", ((3, 5), (7,), (), (2, 3, 4)), untimed_steps=1, timed_steps=2)
FRESH = replace(FEW, name="few-fresh", title="few, fresh", fresh=True)
CPU = device.Cpu()


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A period within the tensors, and a run's files out of the way."""
    monkeypatch.setattr(data, "PERIOD", 13)
    monkeypatch.setattr(data, "PIECE", 5)
    monkeypatch.setattr(device.Cpu, "bandwidth_elements", 1009)
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    for workload in (FEW, FRESH):
        monkeypatch.setitem(workloads.WORKLOADS, workload.name, workload)


def case_of(form: str = "clip", dtype: torch.dtype = torch.float32, workload=FEW) -> Case:
    return Case(workload, dtype, FORMS[form])


def run(case: Case, *contestants: Provider, rounds: int = 2) -> list[dict]:
    found, rates = runner.run_case(
        case, contestants, rounds, stream.Stream(CPU), Settings(), lambda name: None
    )
    assert [len(rates[kernel]) for kernel in ("copy", "triad", "scale")] == [rounds] * 3
    return found


def with_settings(**changes: float) -> Provider:
    """lrfused with other hyperparameters than it is told."""
    whole = PROVIDERS["lrfused"]
    return replace(
        whole, build=lambda params, form, s: whole.build(params, form, replace(s, **changes))
    )
