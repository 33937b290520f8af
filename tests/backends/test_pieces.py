"""Tensors are cut into pieces within their units."""

import numpy as np
import pytest

from lrfused.memory.pieces import cuts, pieces

# Elements, and the length of a unit (0: none).
TABLES = {
    "nothing": [],
    "empty": [(0, 0)],
    "sizes": [(0, 0), (7, 0), (8, 0), (9, 0), (1, 0)],
    "units": [(30, 15), (0, 0), (24, 8), (5, 1), (17, 0), (16, 16)],
}


def by_hand(table, size):
    first_unit = 0
    for t, (count, unit) in enumerate(table):
        length = unit or count
        units = count // unit if unit else 1
        for u in range(units):
            for start in range(0, length, size):
                yield t, first_unit + u, u * length + start, min(size, length - start)
        first_unit += units


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("size", [1, 8, 100])
def test_pieces_are_those_of_a_plain_loop(table, size):
    counts, units = np.array(table, dtype=np.int64).reshape(-1, 2).T
    found = pieces(counts, units, size)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [*by_hand(table, size)]
    assert cuts(counts, units, size).pieces.sum() == len(found.tensor)
