"""What is left of a run of studies that a user or the system ends: nothing that still runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lib.benchmarks import BENCHMARKS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc"),
]
SECONDS = 60


def members(group: int) -> list[str]:
    """The commands of a process group."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append((place / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def wait_for(condition) -> bool:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


def listen() -> None:
    """As in a terminal; tests may run in the background, where it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def running(tmp_path):
    """A run whose two workers have begun, in a process group of its own."""
    command = [sys.executable, "-m", "studies", "--quick", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--only", "lstm_gates", "diffusion"],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=listen,
    )
    assert wait_for(lambda: sum("spawn_main" in text for text in members(process.pid)) == 2)
    time.sleep(5.0)  # they import torch
    yield process
    if members(process.pid):
        os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_ends_everything_at_once_and_says_how_to_go_on(running):
    os.killpg(running.pid, signal.SIGINT)
    said, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == 130
    assert "the same command goes on" in said
    assert wait_for(lambda: not members(running.pid))


def test_workers_end_with_the_main_process(running):
    running.kill()
    running.communicate(timeout=SECONDS)
    assert wait_for(lambda: not members(running.pid))
