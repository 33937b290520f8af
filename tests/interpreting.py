"""Triton's interpreter, made quicker, where a machine without a GPU runs the Triton backend."""

import importlib.util
import os
import random
from collections import defaultdict

import pytest

is_there = os.environ.get("TRITON_INTERPRET") == "1" and bool(
    getattr(importlib.util.find_spec("triton"), "origin", None)  # none: the folder beside this file
)
interpreted = pytest.mark.skipif(not is_there, reason="Triton is not installed or not interpreted")


def _make_quick() -> None:
    """Give the language its interpreted meaning once a module, not anew at each call of a function.

    Everything here is interpreted, so that nobody needs its other meaning.
    """
    from triton.runtime import interpreter

    seen: set[int] = set()

    def patch(function):
        if id(function.__globals__) not in seen:
            seen.add(id(function.__globals__))
            original(function)
        return interpreter._LangPatchScope()

    original, interpreter._patch_lang = interpreter._patch_lang, patch


if is_there:
    _make_quick()


# A step takes the interpreter 20 ms to 1 s: of each test so many of its cases, others each time.
CASES = os.environ.get("LRFUSED_TEST_INTERPRETED", "1")  # or "all": a quarter of an hour


def pytest_collection_modifyitems(items):
    """Keep CASES cases with the Triton backend of each test, which depend on the run's seed."""
    if CASES == "all":
        return
    cases = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec") and item.callspec.params.get("backend") == "triton":
            cases[item.nodeid.partition("[")[0]].append(item)
    dropped = set()
    for name, found in cases.items():
        chosen = random.Random(os.environ["LRFUSED_TEST_SEED"] + name)
        dropped.update(chosen.sample(found, max(len(found) - int(CASES), 0)))
    items[:] = [item for item in items if item not in dropped]
