"""Checks of arguments; each error names the argument, the value and the rule."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np


def whole(name: str, value: Any, minimum: int, maximum: int = 2**53) -> int:
    """An integer in [minimum, maximum]; float64 represents all up to 2**53 exactly.

    Raises:
        ValueError: it is inf or nan, which no dtype of integers has, or out of the range.
        TypeError: it is anything else, a float with a whole value too.
    """
    if isinstance(value, (float, np.floating)) and not math.isfinite(value):
        raise ValueError(f"{name}: must be finite, got {value}")
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: must be an integer, got {value!r} ({type(value).__name__})")
    number = int(value)
    if number < minimum:
        raise ValueError(f"{name}: must be at least {minimum}, got {number}")
    if number > maximum:
        raise ValueError(f"{name}: must be at most {maximum}, got {number}")
    return number


def finite(name: str, value: Any) -> float:
    """A finite real number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: must be a number, got {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: must be finite, got {value}")
    return number


def nonnegative(name: str, value: Any) -> float:
    """A finite number >= 0."""
    number = finite(name, value)
    if number < 0:
        raise ValueError(f"{name}: must not be negative, got {value}")
    return number


def positive(name: str, value: Any) -> float:
    """A finite number > 0."""
    number = finite(name, value)
    if number <= 0:
        raise ValueError(f"{name}: must be greater than 0, got {value}")
    return number


def boolean(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: must be True or False, got {value!r}")
    return value


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of a few strings."""
    if value not in choices:
        raise ValueError(f"{name}: must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def increasing(name: str, steps: Sequence[int]) -> list[int]:
    """A non-empty, strictly increasing list of whole numbers >= 1."""
    if not hasattr(steps, "__len__"):
        raise TypeError(f"{name}: must be a list of steps, got {type(steps).__name__}")
    checked = [whole(f"{name}[{i}]", s, minimum=1) for i, s in enumerate(steps)]
    if not checked:
        raise ValueError(f"{name}: must not be empty")
    for i in range(1, len(checked)):
        if checked[i] <= checked[i - 1]:
            raise ValueError(
                f"{name}: must increase strictly, got {checked[i - 1]} before {checked[i]}"
            )
    return checked
