"""The Triton backend's kernels as PTX: what stands in for a launch."""

import atexit
import json
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lib.on_ptx import Kernels
from torch import Tensor

import lrfused
from lrfused import versions
from ptx import build, machine, meant

HERE = Path(__file__).parent
PACKAGE = Path(lrfused.__file__).parent
SCRATCH = 8  # bytes of each pointer that Triton adds and these kernels do not use


@cache
def _server() -> "subprocess.Popen[str]":
    """One of a process, when something has to be compiled."""
    server = subprocess.Popen(
        [sys.executable, str(HERE / "triton_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(_end, server)
    return server


def _end(server: "subprocess.Popen[str]") -> None:
    server.communicate()  # it ends with its input


def _compile(request: str) -> str:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(request + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    if not answer or "error" in json.loads(answer):
        raise RuntimeError(f"compiling {request[:200]}: {answer and json.loads(answer)['error']}")
    return answer


@cache
def _sources() -> list[Path]:
    """All that a kernel's PTX may depend on beside what is asked for."""
    return [*sorted((PACKAGE / "backends" / "triton").glob("*.py")), HERE / "triton_server.py"]


@cache
def compiled(request: str) -> dict[str, Any]:
    """PTX, shared memory and warps of what was asked for."""
    release = versions.installed("triton")
    path = build.kept(
        build.key("triton", release, request, *_sources()),
        "kernel.json",
        lambda folder: build.write(folder / "kernel.json", _compile(request)),
    )
    return dict(json.loads(path.read_text()))


def flat(
    arguments: tuple[Any, ...], path: tuple[int, ...] = ()
) -> list[tuple[tuple[int, ...], Tensor]]:
    """The tensors among arguments and tuples of them, with where they stand."""
    found = []
    for index, argument in enumerate(arguments):
        here = (*path, index)
        found += [(here, argument)] if isinstance(argument, Tensor) else flat(argument, here)
    return found


class TritonPtx(Kernels):
    """Takes the place of ``lrfused.backends.triton.launch.launch`` for one architecture."""

    def __init__(self, architecture: str):
        super().__init__()
        self.architecture = architecture
        self.libraries: list[machine.Library] = []

    def launch(
        self,
        kernel: Any,
        programs: int,
        device: torch.device,
        arguments: tuple[Any, ...],
        *constants: Any,
        most_registers: int = 0,
    ) -> None:
        """Compile for the constants that are new, and run."""
        tensors = flat(arguments)
        unspecialized = {kernel.arg_names.index(n) for n in UNSPECIALIZED if n in kernel.arg_names}
        aligned = [
            path
            for path, tensor in tensors
            if tensor.data_ptr() % 16 == 0 and path[0] not in unspecialized
        ]
        request = {
            "kernel": kernel.__name__,
            "target": self.architecture,
            "constants": constants,
            "aligned": aligned,
        }
        found = compiled(json.dumps(request))
        library = machine.load(found["ptx"], f"triton-ptx sm_{self.architecture} {kernel.__name__}")
        if library not in self.libraries:
            self.libraries.append(library)
        if self.memory is not None:
            meant.allow(library)
        pointers = [tensor.data_ptr() for _, tensor in tensors]
        size = library.parameters[kernel.__name__]
        parameters = struct.pack(f"{len(pointers)}Q", *pointers).ljust(size, b"\0")
        if not 0 <= size - SCRATCH * len(pointers) <= 2 * SCRATCH:
            raise RuntimeError(f"{kernel.__name__}: {size} bytes for {len(pointers)} pointers")
        self.told()
        library.launch(kernel.__name__, parameters, programs, 32 * found["warps"], found["shared"])


# Of measure_kernel and plan_kernel, as their decorators say.
UNSPECIALIZED = ("gradients", "numbers", "grad_scale", "found_inf")
