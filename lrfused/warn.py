"""Warnings that point at the caller's line."""

import sys
import warnings

# contextlib, because its decorators add frames.
OURS = ("lrfused", "torch", "contextlib")


def warn(message: str) -> None:
    """Issue a UserWarning that points at the nearest frame outside this package and torch."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
