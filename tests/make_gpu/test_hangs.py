"""A GPU test that hangs is lost, and no other: tests/gpu/conftest.py over tests that are posed."""

import json
import os
import subprocess
import sys

import pytest
from lib.bare import ROOT

CONFTEST = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from gpu.conftest import pytest_configure, pytest_runtest_protocol
"""
# PyDLL keeps Python's lock, as a launch does that waits for a full queue.
TESTS = """
import ctypes, pytest

@pytest.mark.parametrize("number", range(3))
def test_number(number):
    if number == 1:
        ctypes.PyDLL(None).sleep(600)
"""


def test_a_test_that_hangs_is_the_only_one_lost(tmp_path):
    pytest.importorskip("xdist")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_posed.py").write_text(TESTS)
    variables = {"GPU_RESULTS": str(tmp_path / "gpu-x.json"), "GPU_TEST_SECONDS": "3"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", "."]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True
    )
    record = json.loads((tmp_path / "gpu-x.json").read_text())
    assert done.returncode == 1 and record["finished"] and record["running"] == []
    outcomes = {test["test"].partition("[")[2]: test["outcome"] for test in record["tests"]}
    assert outcomes == {"0]": "passed", "1]": "failed", "2]": "passed"}
    (reason,) = (test["reason"] for test in record["tests"] if test["outcome"] == "failed")
    assert "crashed while running" in reason
    assert "test_number" in (tmp_path / "gpu-hangs.txt").read_text()
