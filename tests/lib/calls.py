"""Counts the work of a piece of code: the calls of this package's functions."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lrfused

PACKAGE = str(Path(lrfused.__file__).parent)


def calls_in(work: Callable[[], Any]) -> int:
    """How often functions of this package were called, or their generators went on."""
    count = 0

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
