"""What the processes of a test session do once among them, whichever asks first."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], str]) -> str:
    """The text that ``make`` returned, which is given a folder of this name; others wait for it."""
    import fcntl  # not on every system, while this file is imported on all

    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    made = folder / "made.txt"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            made.write_text(make(folder), encoding="utf-8")
    return made.read_text(encoding="utf-8")
