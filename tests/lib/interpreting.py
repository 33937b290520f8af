"""Triton's interpreter, made quicker, where a machine without a GPU runs the Triton backend."""

import importlib.util
import os

import pytest

is_there = os.environ.get("TRITON_INTERPRET") == "1" and bool(
    getattr(importlib.util.find_spec("triton"), "origin", None)  # none: tests/triton
)
interpreted = pytest.mark.skipif(not is_there, reason="Triton is not installed or not interpreted")


def _make_quick() -> None:
    """Give the language its interpreted meaning once a module, not anew at each call of a function.

    Everything here is interpreted, so that nobody needs its other meaning.
    """
    from triton.language import tensor
    from triton.runtime import interpreter

    seen: set[int] = set()
    # Before 3.6 nothing was given back after a call.
    nothing_to_undo = getattr(interpreter, "_LangPatchScope", lambda: None)

    def patch(function):
        if id(function.__globals__) not in seen:
            seen.add(id(function.__globals__))
            original(function)
            # Up to 3.6 this is int() of an array of one element, which NumPy refuses from 2.4 on.
            tensor.__index__ = lambda number: int(number.handle.data.item())
        return nothing_to_undo()

    original, interpreter._patch_lang = interpreter._patch_lang, patch


if is_there:
    _make_quick()
