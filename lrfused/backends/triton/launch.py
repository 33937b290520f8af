"""Launching a kernel: compiled for the constants that it has not seen yet, then run."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from lrfused.device.graph_capture import is_capturing

WARPS = 2 if torch.version.hip else 4  # 128 threads either way

_compiled: set[tuple[Any, ...]] = set()


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    if device.type == "cpu":
        return nullcontext()
    module = torch.xpu if device.type == "xpu" else torch.cuda
    return nullcontext() if device.index == module.current_device() else module.device(device)


def check_compiled(device: torch.device, *kernels: tuple[Any, ...]) -> None:
    """Refuse to compile while a graph is being captured; kernels come with their constants.

    Raises:
        RuntimeError: one of them was not launched with these constants before.
    """
    if not is_capturing(device):
        return
    for kernel, *constants in kernels:
        if (kernel, device, *constants) not in _compiled:
            raise RuntimeError(
                f"step: {kernel.__name__} has to be compiled, which cannot happen while a CUDA "
                f"graph is captured; run one step with the same options and dtypes before"
            )


def launch(
    kernel: Any,
    programs: int,
    device: torch.device,
    arguments: tuple[Any, ...],
    *constants: Any,
    most_registers: int = 0,
) -> None:
    """Run ``programs`` programs of a kernel on the current stream of the device."""
    _compiled.add((kernel, device, *constants))
    is_limited = most_registers and torch.version.cuda and device.type == "cuda"
    registers = {"maxnreg": most_registers} if is_limited else {}
    # The interpreter computes in NumPy, which warns of infinities and nan: here they are values.
    with _on(device), np.errstate(all="ignore"):
        kernel[(programs,)](
            *arguments, *constants, num_warps=WARPS, enable_fp_fusion=False, **registers
        )
