"""The result files of the studies, where everything is written, and what is left of a run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import result_files

from .running import THREADS
from .statistics import Statement, verdict
from .study import FOLDER, NAMES, Result, Study

ROOT = FOLDER.parents[1]
Record = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """Where a run writes: results, page and pictures."""

    results: Path
    page: Path
    pictures: Path

    @property
    def unfinished(self) -> Path:
        """What the present run has done so far, for the next one if this is cut off."""
        return self.results / ".unfinished"


PUBLISHED = Places(FOLDER / "results", ROOT / "docs" / "studies.md", ROOT / "docs" / "studies")


def below(folder: Path) -> Places:
    """All of it below one folder: a quick run replaces no published number."""
    return Places(folder / "results", folder / "studies.md", folder / "studies")


def record(
    study: Study, result: Result, found: Sequence[Statement], seeds: Sequence[int], seconds: float
) -> Record:
    """What a result file contains: the numbers, what they say, and where they are from."""
    return {
        **result_files.head(),
        "finished": True,
        "study": study.name,
        "number": study.number,
        "subject": study.subject,
        "claim": study.claim,
        "problem": study.module.PROBLEM,
        "verdict": verdict(found),
        "statements": [statement.plain() for statement in found],
        "seeds": list(seeds),
        "cpu_seconds": round(seconds, 1),
        "machine": {**machine.describe(), "threads": THREADS},
        "versions": machine.versions(),
        "result": result,
    }


def path(places: Places, name: str) -> Path:
    return places.results / f"{name}.json"


def read(places: Places) -> dict[str, Record]:
    """The results that there are, in the order of the studies."""
    files = {name: path(places, name) for name in NAMES}
    return {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name, file in files.items()
        if file.exists()
    }


class Unfinished:
    """Which studies a run has done, until all are: the next run goes on from there."""

    def __init__(self, places: Places):
        self._path = places.unfinished
        self._done: dict[str, str] = {}
        if self._path.exists():
            self._done = json.loads(self._path.read_text(encoding="utf-8"))

    def has(self, study: Study, seeds: Sequence[int]) -> bool:
        """A study that was changed since then, or lrfused, is done again."""
        return self._done.get(study.name) == _key(study, seeds)

    def note(self, study: Study, seeds: Sequence[int]) -> None:
        self._done[study.name] = _key(study, seeds)
        result_files.write(self._done, self._path)

    def end(self) -> None:
        self._path.unlink(missing_ok=True)


def _key(study: Study, seeds: Sequence[int]) -> str:
    return f"{len(seeds)} seeds, {study.fingerprint()}"
