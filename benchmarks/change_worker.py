"""One side of changes.py: answers `begin ROW`, `turn ROW` and `check ROW` by a line of JSON each.

    python benchmarks/change_worker.py ROOT SIDE

ROOT is the checkout whose lrfused is used, whichever is installed.
"""

import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import use_package

if TYPE_CHECKING:
    from change_rows import Subject


class Answers:
    """Of a side, which holds one row at a time."""

    def __init__(self, side: str):
        self._side = side
        self._subject: Subject | None = None

    def to(self, question: str) -> dict[str, Any]:
        """An ``answer``, or why there is none: what is ``wrong``, or how it ``failed``."""
        from verify import WrongResult

        try:
            return {"answer": self._answer(*question.split())}
        except WrongResult as error:
            return {"wrong": str(error)}
        except Exception as error:  # the other sides go on
            return {"failed": f"{type(error).__name__}: {error}"}

    def _answer(self, asked: str, name: str) -> Any:
        from change_rows import ROWS

        if asked == "begin":
            self._subject = None
            self._subject = ROWS[name].make(self._side)
            return None
        assert self._subject is not None
        gc.collect()
        gc.disable()
        try:
            return self._subject.turn() if asked == "turn" else self._subject.check()
        finally:
            gc.enable()


def main(root: str, side: str) -> None:
    use_package(Path(root))
    import change_rows  # noqa: F401 (this package is the one that others then find)
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # modules are no garbage at any turn: collections need not look through them
    answers = Answers(side)
    for line in sys.stdin:
        print(json.dumps(answers.to(line)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
