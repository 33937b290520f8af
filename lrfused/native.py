"""The C++ and CUDA modules if they were built, or else the reason."""

from pathlib import Path
from types import ModuleType

cpu: ModuleType | None
cuda: ModuleType | None
why_not_cpu: str | None
why_not_cuda: str | None


def _reason(note: str, error: ImportError) -> str:
    """Why a module is missing: the note that the build left, or the import error."""
    path = Path(__file__).with_name(note)
    if path.exists():
        return path.read_text().strip()
    # If the file does not exist, Python's message is about a circular import.
    return "not built" if error.name == "lrfused" else f"it cannot be imported ({error})"


try:
    from lrfused import _cpu

    cpu, why_not_cpu = _cpu, None
except ImportError as error:
    cpu, why_not_cpu = None, _reason("build_failure.txt", error)

# The ways in which the guard can read a tensor's address in this torch, best first; if empty, there
# is no guard. Tested at import, outside any mode (inference, compile) that the first step runs in.
tensor_readers: list[str] = [] if cpu is None else cpu.tensor_readers()

try:
    from lrfused import _cuda

    cuda, why_not_cuda = _cuda, None
except ImportError as error:
    cuda, why_not_cuda = None, _reason("build_failure_cuda.txt", error)
