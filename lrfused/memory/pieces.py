"""Cuts tensors into pieces; csrc/host/rows.h does the same for the native backends."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrfused.memory.operands import Entry


class Cut(NamedTuple):
    """One tensor: its number of units (1 if it has none), elements per unit, pieces per unit."""

    units: int
    length: int
    per_unit: int

    @property
    def pieces(self) -> int:
        """The number of pieces of all units."""
        return self.units * self.per_unit


class Pieces(NamedTuple):
    """Columns, a row per piece, which lies in one unit; units are numbered over all tensors."""

    tensor: NDArray[np.int64]
    unit: NDArray[np.int64]
    offset: NDArray[np.int64]
    elements: NDArray[np.int64]


def cut(entry: Entry, size: int) -> Cut:
    """Cut a tensor into pieces of at most ``size`` elements, none across two units."""
    count = entry.p.flat.numel()
    units, length = (count // entry.unit, entry.unit) if entry.unit else (1, count)
    return Cut(units, length, -(-length // size))


def pieces(entries: Sequence[Entry], size: int) -> Pieces:
    """The pieces of all tensors, in order."""
    cuts = np.array([cut(entry, size) for entry in entries], dtype=np.int64).reshape(-1, 3)
    units, length, per_unit = cuts.T
    tensor_of = np.repeat(np.arange(len(cuts)), units)  # each unit
    pieces_of = per_unit[tensor_of]
    unit = np.repeat(np.arange(len(tensor_of)), pieces_of)
    tensor = tensor_of[unit]
    start = (np.arange(len(unit)) - _sums_before(pieces_of)[unit]) * size
    offset = (unit - _sums_before(units)[tensor]) * length[tensor] + start
    return Pieces(tensor, unit, offset, np.minimum(size, length[tensor] - start))


def _sums_before(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(counts) - counts
