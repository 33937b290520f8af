"""What a study is, as the runner, the page and the tests see it."""

import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from .statistics import Statement, Values

FOLDER = Path(__file__).resolve().parents[1]
PACKAGE = FOLDER.parents[1] / "lrfused"
Result = dict[str, Any]

WARMUP = (
    "warmup_by_optimizer",
    "momentum_roots",
    "clipping",
    "compensated_decay",
    "large_batches",
    "accumulation",
    "fp16_range",
    "second_moment",
    "lstm_gates",
    "detectors",
    "fine_tuning",
    "staged_unfreezing",
    "curriculum",
    "warmup_length",
)
SCHEDULES = (
    "cyclical",
    "batch_norm",
    "coupled_decay",
    "augmentation",
    "temperature",
    "margins",
    "layerwise",
    "federated",
    "diffusion",
    "lottery_tickets",
    "orchestra",
)
NAMES = (*WARMUP, *SCHEDULES)


class Study:
    """A module of this folder.

    It has PROBLEM, the chapters' number of the subject; SEEDS, how many a whole run takes; SWAPPED,
    the two arms without whose difference the claim would be empty; ``recipe``, a function with the
    lines that a user would copy, which ``run`` uses; ``run``, ``check``, ``main_panel``, ``plot``.
    A result is {"arms": {arm: {measure: [a number by seed]}}, ...}, plain numbers throughout.
    """

    def __init__(self, name: str):
        self.name, self.number = name, NAMES.index(name) + 1
        self.module: ModuleType = importlib.import_module(f"studies.{name}")

    @property
    def subject(self) -> str:
        return self._title().partition(": ")[0]

    @property
    def claim(self) -> str:
        """The first line has both: "Subject: claim in short."."""
        return self._title().partition(": ")[2]

    @property
    def text(self) -> str:
        """Claim, formula, control, and what was found: all of the docstring but its first line."""
        return "\n".join(self._documentation()[1:]).strip()

    def _title(self) -> str:
        return self._documentation()[0].rstrip(".")

    def _documentation(self) -> list[str]:
        return (inspect.getdoc(self.module) or "").splitlines()

    @property
    def recipe(self) -> str:
        return inspect.getsource(self.module.recipe).rstrip()

    def seeds(self, most: int | None = None) -> list[int]:
        return list(range(min(most or self.module.SEEDS, self.module.SEEDS)))

    def check(self, result: Result) -> list[Statement]:
        return self.module.check(result)

    def swapped(self, result: Result) -> Result:
        """The result with two arms exchanged: a check that still passes checks nothing."""
        first, second = self.module.SWAPPED
        arms = dict(result["arms"])
        arms[first], arms[second] = arms[second], arms[first]
        return {**result, "arms": arms}

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.py"

    def fingerprint(self) -> str:
        """Changes with every file that the result depends on."""
        files = [*FOLDER.glob("common/*.py"), *FOLDER.parent.glob("demo_*.py")]
        files += [*PACKAGE.rglob("*.py"), *PACKAGE.glob("*.so")]
        versions = f"{torch.__version__} {sys.version}".encode()
        return _digest([versions, *(f.read_bytes() for f in sorted([self.file, *files]))])

    def drawing(self, result: Result) -> str:
        """Ties a picture to the numbers that it shows and the code that drew it."""
        code = (self.file, FOLDER / "common" / "plotting.py")
        numbers = json.dumps(result, sort_keys=True).encode()
        return _digest([numbers, *(file.read_bytes() for file in code)])


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def measured(result: Result, *arms: str) -> list[dict[str, Values]]:
    """The measures of some arms, as arrays by seed."""
    return [
        {name: np.asarray(values) for name, values in result["arms"][arm].items()} for arm in arms
    ]


def collect(rows: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, list[Any]]]:
    """From {arm: {measure: number}} for each seed to {arm: {measure: [a number by seed]}}."""
    return {
        arm: {measure: [row[arm][measure] for row in rows] for measure in rows[0][arm]}
        for arm in rows[0]
    }
