"""Where and with what a benchmark was run."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import memory
import torch

from lrfused import native
from lrfused._version import __version__

CPUINFO = Path("/proc/cpuinfo")


def describe() -> dict[str, Any]:
    """The machine, as far as it matters to a time."""
    total = memory.total_bytes()
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": None if total is None else round(total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "backend": native.why_not_cpu or ", ".join(native.cpu.instruction_sets()),
    }


def load() -> float | None:
    """What else keeps the machine busy, as cores over the last minute: times want a quiet one."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str]:
    return {
        "lrfused": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "compiler": compiler(),
    }


def processor() -> str:
    """The model's name and numbers: hypervisors often leave just the maker in the name."""
    if not CPUINFO.exists():
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", CPUINFO.read_text(), re.MULTILINE))
    name = fields.get("model name", platform.machine())
    if "cpu family" not in fields:
        return name
    return f"{name}, family {fields['cpu family']} model {fields['model']}"


def compiler() -> str:
    """What built the C++ module: compilers leave their name in it."""
    if native.cpu is None or native.cpu.__file__ is None:
        return f"none: {native.why_not_cpu}"
    names = re.findall(
        rb"GCC: \([^)\0]*\) [\d.]+|clang version [\d.]+", _bytes(native.cpu.__file__)
    )
    return ", ".join(sorted({name.decode() for name in names})) or "unknown"


def _bytes(file: str) -> bytes:
    return Path(file).read_bytes()
