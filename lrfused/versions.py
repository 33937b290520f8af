"""The versions that lrfused is tested with, and those in use."""

from __future__ import annotations  # an unsupported, older Python must be able to import this file

import importlib
import platform
import re
from typing import NamedTuple


class Tested(NamedTuple):
    """The oldest version that lrfused runs with, and the newest that it was tested with."""

    title: str
    floor: str
    newest: str


SUPPORTED = {
    "python": Tested("Python", "3.10", "3.13"),
    "torch": Tested("torch", "2.8", "2.15"),
    "triton": Tested("Triton", "3.4", "3.9"),
    "numpy": Tested("NumPy", "1.24", "2.5"),
}


def installed(name: str) -> str:
    """The version in use.

    Raises:
        ImportError: the package is not there, or cannot be imported.
    """
    if name == "python":
        return platform.python_version()
    try:
        return str(importlib.import_module(name).__version__)
    except Exception as error:  # a broken installation may raise anything
        raise ImportError(str(error)) from error


def why_not(name: str, version: str | None = None) -> str | None:
    """Why an installed version, or this one, cannot be used; None if it can."""
    title, floor, _ = SUPPORTED[name]
    try:
        version = version or installed(name)
    except ImportError as error:
        return f"{title} cannot be imported ({error})"
    if _minor(version) >= _minor(floor):
        return None
    return f"{title} {version} is not supported: {floor} or newer is needed"


def described(name: str, version: str) -> str:
    """A version, marked if it is newer than the newest tested one."""
    newest = SUPPORTED[name].newest
    return (
        f"{version} (newer than tested, {newest})" if _minor(version) > _minor(newest) else version
    )


def why_unusable() -> str | None:
    """Why nothing of lrfused but `info()` can be used here; None if it can."""
    return next(filter(None, map(why_not, ("python", "torch", "numpy"))), None)


def _minor(version: str) -> tuple[int, ...]:
    """(3, 10) of "3.10.0a0+git"; a version of another form counts as the newest."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else (10**9,)
