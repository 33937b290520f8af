"""Where a GPU test runs; no tests' module that imports Triton is imported here."""

import sys
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from kernels import launched, wait

__all__ = ["Target", "launched", "wait"]


class Target(NamedTuple):
    """A backend, where its tensors are, and whether a CPU stands in for a GPU."""

    backend: str
    device: torch.device
    dry: bool

    def count(self, number: int, dry: int) -> int:
        """How often to do something; less of it in a dry run."""
        return dry if self.dry else number
