"""Processes that hold one side of a comparison each, and do a piece of work when they are asked."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Worker:
    """A Python process that answers every line on its input by a line of JSON."""

    def __init__(self, script: Path, arguments: Sequence[str]):
        command = [sys.executable, str(script), *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: str) -> Any:
        """Its answer.

        Raises:
            RuntimeError: it ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # of one that ended: it has no answer either
            print(question, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            self.end()
            raise RuntimeError(f"benchmarks: a worker ended with status {self._process.returncode}")
        return json.loads(answer)

    def end(self) -> None:
        """Let it go."""
        with contextlib.suppress(BrokenPipeError), self._process:
            pass


def use_package(root: Path) -> None:
    """Import lrfused from the root of this checkout, whichever is installed."""
    sys.path.insert(0, str(root))
    import lrfused

    if Path(lrfused.__file__).parents[1] != root.resolve():
        raise RuntimeError(f"benchmarks: lrfused was not imported from {root}")
