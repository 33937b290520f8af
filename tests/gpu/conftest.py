"""Tests on a GPU, each for every GPU backend that is there: `pytest -m gpu`.

LRFUSED_GPU_DRY_RUN=cpu lets the C++ backend stand in, on a CPU; =triton, without -m gpu, the
interpreted kernels (minutes). GPU_RESULTS names a JSON file that is written after every test.
"""

import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
import torch

from .target import Target

# isort: split
import machine
import records
from gpu_device import DryGpu, Gpu

import lrfused

STAND_INS = os.environ.get("LRFUSED_GPU_DRY_RUN", "")
DRY = bool(STAND_INS)
BACKENDS = STAND_INS.split(",") if DRY else ["cuda", "triton"]


@pytest.fixture(params=BACKENDS)
def target(request: pytest.FixtureRequest) -> Target:
    """A backend on the present GPU."""
    reason = _why_not(request.param)
    if reason:
        pytest.skip(reason)
    request.node.user_properties.append(("backend", request.param))
    return Target(request.param, torch.device("cpu" if DRY else "cuda:0"), DRY)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On the CPU there are references of a few elements, in several processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _why_not(backend: str) -> str | None:
    if DRY:
        return None
    if not torch.cuda.is_available():
        return "no GPU"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "kernels are interpreted here; pytest -m gpu runs these tests"
    found = lrfused.info()[backend]
    return None if found.available else f"{backend}: {found.detail}"


# Results


class Recorder:
    """A file with the outcome of every test, whole at any time."""

    def __init__(self, path: Path):
        device = Gpu() if torch.cuda.is_available() else DryGpu()
        self.path = path
        self.record = {
            "schema": records.SCHEMA,
            "kind": "tests",
            "dry_run": DRY,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": machine.commit(),
            "machine": device.describe(),
            "versions": {**machine.versions(), **device.versions()},
            "tests": [],
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        found = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "seconds": round(report.duration, 3),
            **dict(report.user_properties),
        }
        if report.outcome != "passed":
            found["reason"] = str(report.longrepr)[-1000:]
        self.record["tests"].append(found)
        records.write(self.record, self.path)


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get("GPU_RESULTS")
    if path and not hasattr(
        config, "workerinput"
    ):  # the workers of xdist tell the one who has them
        config.pluginmanager.register(Recorder(Path(path)))
