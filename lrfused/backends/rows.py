"""Rows: what kernels know of each tensor, as numbers that csrc/host/read.h reads."""

from collections.abc import Iterable
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray

from lrfused.memory.formats import CODES
from lrfused.memory.operands import Entry, Operand
from lrfused.rules import UpdateRule

Rows = NDArray[np.int64]


class Column(IntEnum):
    """The columns of a row; vectors are pairs of address and dtype code, and stand last.

    The address is 0 of what is not there or is on another device. ``UNIT`` is the number of
    elements of an output unit, 0 without units.
    """

    PARAM = 0
    AVERAGE = 2
    MASK = 4
    COUNT = 5
    UNIT = 6
    GROUP = 7
    OPERANDS = 8


NOTHING = (0, CODES[torch.float32])


def rows_of(rule: UpdateRule, entries: Iterable[Entry]) -> Rows:
    """The rows of these entries."""
    rows = [_row(len(rule.operands), entry) for entry in entries]
    width = Column.OPERANDS + 2 * len(rule.operands)
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)


def _row(operands: int, entry: Entry) -> list[int]:
    address, dtype, count = entry.p.row
    mask = 0 if entry.mask is None else entry.mask.data_ptr()
    row = [address, dtype, *_vector(entry.average), mask, count, entry.unit, entry.group]
    for operand in entry.state[:operands]:
        row += _vector(operand)
    missing = operands - len(entry.state[:operands])
    return [*row, *NOTHING * missing]


def _vector(operand: Operand | None) -> tuple[int, int]:
    return NOTHING if operand is None else operand.row[:2]
