"""A run that goes on from a checkpoint is the uninterrupted run, whatever carried its state."""

import re

import pytest

from . import cells
from .checking import check
from .launching import OK
from .limits import BETWEEN, DEADLY, limits_of

pytest.importorskip("torch.distributed")

# After one that leaves ranks apart, which then fails as it is known to.
NOT_TRIED = "not tried: a cell of the same checkpoint failed before"


def parameters(jobs):
    """A test for each cell; what others show as well is slow."""
    return [
        pytest.param(cell, id=cell.split(":")[1], marks=() if job.is_short() else pytest.mark.slow)
        for job in jobs
        for cell in job.cells
        if not re.search(DEADLY, cell)
    ]


def check_limits(cell, became, limits):
    """All is well, or it fails as it is known to."""
    if not limits:
        check(cell, became)
    for limit in limits:
        says = f"{limit.says}|{NOT_TRIED}"
        assert re.search(says, became[cell]), f"{limit.why}:\n{became[cell]}"


@pytest.mark.parametrize("cell", parameters(cells.OURS))
def test_ours_goes_on(cell, became):
    """Parameters, moments, counts, groups and metrics() of lrfused.AdamW are bit-equal to those of
    the uninterrupted run after the load and after each of five steps; one warning says what an
    option of the loading optimizer does otherwise, and without that there is none. Where torch
    cannot carry its own AdamW either, it fails as that does."""
    if became[cell] != OK:
        check_limits(cell, became, limits_of(cell))


@pytest.mark.parametrize("cell", parameters(cells.TORCHS))
def test_torchs_own_goes_on(cell, became):
    """The same for torch.optim.AdamW: the harness asks for nothing that torch does not do; what
    torch cannot do fails with the error that limits.py says."""
    check_limits(cell, became, limits_of(cell))


@pytest.mark.parametrize("cell", parameters(cells.EXCHANGED))
def test_a_checkpoint_of_the_other_class_goes_on(cell, became):
    """torch.optim.AdamW's checkpoint in lrfused.AdamW, whose schedule leads, and the other way
    round: near the uninterrupted run of the class that saved. limits.py says which ways ask a
    checkpoint of torch's for the keys that only our groups have."""
    check_limits(cell, became, limits_of(cell, BETWEEN))
