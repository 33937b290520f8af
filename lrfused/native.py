"""The C++ and CUDA modules, if they were built, and why not otherwise."""

from pathlib import Path
from types import ModuleType

cpu: ModuleType | None
cuda: ModuleType | None
why_not_cpu: str | None
why_not_cuda: str | None


def _reason(note: str, error: ImportError) -> str:
    """What the build left in place of a module."""
    path = Path(__file__).with_name(note)
    if path.exists():
        return path.read_text().strip()
    # Where there is no file at all, Python's message is about a circular import.
    return "not built" if error.name == "lrfused" else f"it cannot be imported ({error})"


try:
    from lrfused import _cpu

    cpu, why_not_cpu = _cpu, None
except ImportError as error:
    cpu, why_not_cpu = None, _reason("build_failure.txt", error)

# How the walk can ask this torch where a tensor lies, the best way first; none: there is no walk.
# Proved here and now, outside whatever the first step is in.
tensor_readers: list[str] = [] if cpu is None else cpu.tensor_readers()

try:
    from lrfused import _cuda

    cuda, why_not_cuda = _cuda, None
except ImportError as error:
    cuda, why_not_cuda = None, _reason("build_failure_cuda.txt", error)
