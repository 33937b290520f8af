"""A sharded run that goes on with another number of ranks is the run of a single process."""

import pytest

from . import chains
from .checking import check


def cells(of):
    return [pytest.param(cell, id=cell) for chain in of for cell in chain.cells]


@pytest.mark.parametrize("cell", cells(chains.OF_TWO))
def test_shards_go_on_with_more_or_fewer_ranks(cell, became):
    """FSDP2, from two ranks to one and from one to two: this rank's shards of parameters and
    moments, counts, groups and metrics() are bit-equal to those of one process without shards."""
    check(cell, became)


@pytest.mark.slow
@pytest.mark.parametrize("cell", cells(chains.OF_FOUR))
def test_shards_go_on_from_two_to_four_ranks_to_one(cell, became_of_four):
    """The same with four ranks, of which some hold nothing of a parameter."""
    check(cell, became_of_four)
