"""Cuts tensors into pieces; csrc/host/rows.h does the same for the native backends."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


class Cuts(NamedTuple):
    """Columns, a row per tensor: its units (1 if it has none), their length, pieces per unit."""

    units: Numbers
    length: Numbers
    per_unit: Numbers

    @property
    def pieces(self) -> Numbers:
        """The number of pieces of all units of each tensor."""
        return self.units * self.per_unit


class Pieces(NamedTuple):
    """Columns, a row per piece, which lies in one unit; units are numbered over all tensors."""

    tensor: Numbers
    unit: Numbers
    offset: Numbers
    elements: Numbers


def cuts(counts: Numbers, unit: Numbers, size: int) -> Cuts:
    """Cut tensors into pieces of at most ``size`` elements, none across two units.

    ``counts`` are their elements, ``unit`` the elements of an output unit, 0 without units.
    """
    has_units = unit > 0
    length = np.where(has_units, unit, counts)
    units = np.where(has_units, counts // np.maximum(unit, 1), 1)
    return Cuts(units, length, -(-length // size))


def pieces(counts: Numbers, unit: Numbers, size: int) -> Pieces:
    """The pieces of all tensors, in order."""
    units, length, per_unit = cuts(counts, unit, size)
    tensor_of = np.repeat(np.arange(len(units)), units)  # each unit
    pieces_of = per_unit[tensor_of]
    number = np.repeat(np.arange(len(tensor_of)), pieces_of)
    tensor = tensor_of[number]
    start = (np.arange(len(number)) - sums_before(pieces_of)[number]) * size
    offset = (number - sums_before(units)[tensor]) * length[tensor] + start
    return Pieces(tensor, number, offset, np.minimum(size, length[tensor] - start))


def sums_before(counts: Numbers) -> Numbers:
    """The sum of all earlier ones, for each."""
    return np.cumsum(counts) - counts
