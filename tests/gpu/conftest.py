"""Tests on a GPU, each for every GPU backend that is there: `pytest -m gpu`.

GPU_BACKENDS=cuda takes one of them. With LRFUSED_GPU_DRY_RUN=1 all runs on a CPU: the C++ backend
stands in for CUDA, Triton's kernels are interpreted (minutes), each test is taken with its
first parameters, and with the first of each optimizer. GPU_RESULTS names a JSON file that is
written before and after every test; GPU_TEST_SECONDS ends a process whose test takes longer, even
where it hangs in a call of CUDA.
"""

import faulthandler
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lib.rules_for_steps import RULES, rule  # noqa: F401 (a fixture)

from .target import Target

# isort: split
import machine
import result_files
from gpu_device import DryGpu, Gpu

from lrfused.backends.registry import BACKENDS as REGISTERED

DRY = "LRFUSED_GPU_DRY_RUN" in os.environ
STAND_INS = {"cuda": "cpu"} if DRY else {}
NAMES = os.environ.get("GPU_BACKENDS", "cuda" if DRY else "cuda,triton").split(",")
BACKENDS = [STAND_INS.get(name, name) for name in NAMES]


@pytest.fixture(params=BACKENDS)
def target(request: pytest.FixtureRequest) -> Target:
    """A backend on the present GPU."""
    reason = _why_not(request.param)
    if reason:
        pytest.skip(reason)
    request.node.user_properties.append(("backend", request.param))
    return Target(request.param, torch.device("cpu" if DRY else "cuda:0"), DRY)


def _why_not(backend: str) -> str | None:
    if not DRY and not torch.cuda.is_available():
        return "no GPU"
    if not DRY and os.environ.get("TRITON_INTERPRET") == "1":
        return "kernels are interpreted here; pytest -m gpu runs these tests"
    reason = REGISTERED[backend].why_unavailable()
    return None if reason is None else f"{backend}: {reason}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A dry run is there for the tests' own code: it takes each once for every optimizer."""
    if DRY:
        first = {(item.nodeid.partition("[")[0], _rule_of(item)): item for item in reversed(items)}
        items[:] = [item for item in items if item in first.values()]


def _rule_of(item: pytest.Item) -> str | None:
    found: str | None = getattr(getattr(item, "callspec", None), "params", {}).get("rule")
    return found


# A test that hangs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Ends this process, of which xdist starts another, and leaves a note of where it hung.

    A thread of C's watches: one of Python's would wait for the lock that the test may hold.
    """
    seconds, results = os.environ.get("GPU_TEST_SECONDS"), os.environ.get("GPU_RESULTS")
    if seconds is None or results is None:
        return (yield)
    with Path(results).with_name("gpu-hangs.txt").open("a") as file:
        faulthandler.dump_traceback_later(float(seconds), exit=True, file=file)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()


# Results


class Recorder:
    """A file with the outcome of every test, whole at any time; ``running`` are those begun."""

    def __init__(self, path: Path):
        device = Gpu() if torch.cuda.is_available() else DryGpu()
        self.path = path
        self.record: dict[str, Any] = {
            **result_files.head(),
            "kind": "tests",
            "dry_run": DRY,
            "machine": device.describe(),
            "versions": {**machine.versions(), **device.versions()},
            "rules": list(RULES),
            "running": [],
            "tests": [],
        }

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.record["running"].append(nodeid)
        result_files.write(self.record, self.path)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # "???" is what xdist says of a test whose process ended.
        if report.when in ("teardown", "???") and report.nodeid in self.record["running"]:
            self.record["running"].remove(report.nodeid)
        if report.when != "call" and report.outcome == "passed":
            return
        found = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "seconds": round(getattr(report, "duration", 0.0), 3),
            **dict(report.user_properties),
        }
        if report.outcome != "passed":
            found["reason"] = str(report.longrepr)[-1000:]
        self.record["tests"].append(found)
        result_files.write(self.record, self.path)

    def pytest_sessionfinish(self) -> None:
        self.record["finished"] = True
        result_files.write(self.record, self.path)


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get("GPU_RESULTS")
    if path and not hasattr(
        config, "workerinput"
    ):  # the workers of xdist tell the one who has them
        config.pluginmanager.register(Recorder(Path(path)))
