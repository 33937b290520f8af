"""What csrc/cpu/module.cpp offers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

OP_COUNT: int
FIELDS: int
SLOTS: int
TABLE: int
LOSS_SCALE: int
MAX_GRAD_NORM: int

Code = tuple[tuple[int, int, int, int], ...]
Floats = NDArray[np.float64]

def evaluate(code: Code, leading: list[float], result: int, table: Floats) -> float: ...
def evaluate_many(
    code: Code, others: list[float], result: int, table: Floats, steps: Floats
) -> Floats: ...
def elementary(name: str, x: Floats, y: Floats) -> Floats: ...
def instruction_sets() -> list[str]: ...

class Step:
    def __init__(
        self,
        tensors: list[dict[str, Any]],
        groups: list[dict[str, Any]],
        options: dict[str, Any],
        programs: list[dict[str, Any]],
        state: dict[str, int],
    ) -> None: ...
    def run(
        self,
        gradients: NDArray[np.int64],
        values: Floats,
        is_override: NDArray[np.bool_],
        next_values: Floats,
        grad_scale: float,
        found_inf: bool,
        threads: int,
        instruction_set: str,
    ) -> tuple[int, bool, int]: ...

def tensor_readers() -> list[str]: ...

class Guard:
    def __init__(
        self,
        groups: list[dict[str, Any]],
        states: dict[Tensor, Any],
        params: list[tuple[Tensor, int, bool, bool]],
        watched: list[Tensor],
        keys: tuple[str, ...],
        writes: bool,
        reader: str,
    ) -> None: ...
    def look(
        self,
        groups: list[dict[str, Any]],
        states: dict[Tensor, Any],
        gradients: NDArray[np.int64],
    ) -> tuple[bool, list[Tensor], list[int]] | None: ...
    def remember(self, groups: list[dict[str, Any]]) -> None: ...
