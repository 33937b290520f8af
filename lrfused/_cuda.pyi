"""What csrc/cuda/module.cpp offers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

emulated: bool  # built by tests/cuda_emulated for CPU tensors

def architectures() -> list[int]: ...
def supports(major: int, minor: int, chips: str = ...) -> bool: ...

# Switches of benchmarks, for all steps from here on; both are on, None leaves one as it is:
# apply may be launched while measure still runs; both kernels prefer the same part of a
# multiprocessor's first cache as shared memory.
def configure(dependent_launch: bool | None = None, equal_carveout: bool | None = None) -> None: ...
def parameter_capacity() -> int: ...
def packed(gradients: NDArray[np.int64]) -> NDArray[np.int64]: ...

class Step:
    def __init__(
        self,
        tensors: list[dict[str, Any]],
        groups: list[dict[str, Any]],
        options: dict[str, Any],
        programs: list[dict[str, Any]],
        state: dict[str, int],
    ) -> None: ...
    @property
    def table_size(self) -> int: ...
    @property
    def workspace_size(self) -> int: ...
    @property
    def decided_place(self) -> int: ...
    @property
    def decided_end(self) -> int: ...
    @property
    def overflows_place(self) -> int: ...
    def place(self, table: int, workspace: int) -> bytes: ...
    def run(
        self,
        gradients: NDArray[np.int64],
        gradient_table: int,
        values: int,
        is_override: int,
        grad_scale: float,
        grad_scale_address: int,
        found_inf: bool,
        found_inf_address: int,
        device: int,
        stream: int,
        phases: int,
    ) -> None: ...
