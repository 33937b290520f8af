"""Memory of this process and of the machine, from Linux's /proc; None where that is not there."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
MEMINFO = Path("/proc/meminfo")
RESET_PEAK = "5"


def peak_extra_bytes(call: Callable[[], Any]) -> int | None:
    """The most resident memory during a call, less what was resident before.

    Temporaries of earlier calls that the allocator keeps for the next ones are handed back
    first; otherwise they would count as memory held before. The system counts pages in batches by
    processor and may give huge ones: differences below some mebibytes mean nothing.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR_REFS.write_text(RESET_PEAK)
    except (OSError, AttributeError):
        return None
    before = _field(STATUS, "VmRSS")
    call()
    return _field(STATUS, "VmHWM") - before


def available_bytes() -> int | None:
    """What can be allocated without swapping."""
    return _field(MEMINFO, "MemAvailable") if MEMINFO.exists() else None


def total_bytes() -> int | None:
    return _field(MEMINFO, "MemTotal") if MEMINFO.exists() else None


def _field(file: Path, name: str) -> int:
    """A value of the form ``Name: 123 kB``, in bytes."""
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{name}: must be a line of {file}, it is not there")
