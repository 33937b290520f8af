"""The result files of the studies, where everything is written, and what is left of a run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import result_files

from .running import THREADS, Done, Task
from .statistics import verdict
from .study import FOLDER, NAMES, Study

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


def record(study: Study, done: Done) -> Record:
    """What a result file contains: the numbers, what they say, and where they are from."""
    return {
        **result_files.head(),
        "finished": True,
        "study": study.name,
        "number": study.number,
        "subject": study.subject,
        "claim": study.claim,
        "problem": study.module.PROBLEM,
        "verdict": verdict(done.statements),
        "statements": [statement.plain() for statement in done.statements],
        "seeds": list(done.task.seeds),
        "device": done.task.device,
        "cpu_seconds": round(done.seconds, 1),
        "machine": {**machine.describe(), "threads": THREADS},
        "versions": machine.versions(),
        "result": done.result,
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


def check_again(places: Places) -> None:
    """Verdicts and statements anew, from the numbers that are stored, after a check was changed."""
    for name, found in read(places).items():
        statements = Study(name).check(found["result"])
        told = {"statements": [each.plain() for each in statements], "verdict": verdict(statements)}
        result_files.write({**found, **told}, path(places, name))


class Unfinished:
    """Which studies a run has done, until all are: the next run goes on from there."""

    def __init__(self, places: Places):
        self._path = places.unfinished
        self._done: dict[str, str] = {}
        if self._path.exists():
            self._done = json.loads(self._path.read_text(encoding="utf-8"))

    def has(self, study: Study, task: Task) -> bool:
        """A study that was changed since then, or lrfused, is done again."""
        return self._done.get(study.name) == _key(study, task)

    def note(self, study: Study, task: Task) -> None:
        self._done[study.name] = _key(study, task)
        result_files.write(self._done, self._path)

    def end(self, names: Sequence[str]) -> None:
        """A run over these has finished; what another one has done of others is kept."""
        self._done = {name: key for name, key in self._done.items() if name not in names}
        if self._done:
            result_files.write(self._done, self._path)
        else:
            self._path.unlink(missing_ok=True)


def _key(study: Study, task: Task) -> str:
    return f"{len(task.seeds)} seeds on {task.device}, {study.fingerprint()}"
