"""The C++ module, if it was built, and why not otherwise."""

from pathlib import Path
from types import ModuleType

cpu: ModuleType | None
why_not_cpu: str | None

try:
    from lrfused import _cpu

    cpu, why_not_cpu = _cpu, None
except ImportError as error:
    note = Path(__file__).with_name("build_failure.txt")
    cpu = None
    why_not_cpu = note.read_text().strip() if note.exists() else f"not built ({error})"
