"""A run that goes on from a checkpoint is the uninterrupted run, whatever carried its state."""

import re

import pytest

from . import cells
from .checking import check
from .limits import DEADLY, limits_of

pytest.importorskip("torch.distributed")


def parameters(jobs):
    """A test for each cell; what others show as well is slow."""
    return [
        pytest.param(cell, id=cell.split(":")[1], marks=() if job.is_short() else pytest.mark.slow)
        for job in jobs
        for cell in job.cells
        if not re.search(DEADLY, cell)
    ]


@pytest.mark.parametrize("cell", parameters(cells.OURS))
def test_ours_goes_on(cell, became):
    """Parameters, moments, counts, groups and metrics() of lrfused.AdamW are bit-equal to those of
    the uninterrupted run after the load and after each of five steps; one warning says what an
    option of the loading optimizer does otherwise, and without that there is none."""
    check(cell, became)


@pytest.mark.parametrize("cell", parameters(cells.TORCHS))
def test_torchs_own_goes_on(cell, became):
    """The same for torch.optim.AdamW: the harness asks for nothing that torch does not do; what
    torch cannot do fails with the error that limits.py says."""
    limits = limits_of(cell)
    if not limits:
        check(cell, became)
    for limit in limits:
        assert re.search(limit.says, became[cell]), f"{limit.why}:\n{became[cell]}"


@pytest.mark.parametrize("cell", parameters(cells.EXCHANGED))
def test_a_checkpoint_of_the_other_class_goes_on(cell, became):
    """torch.optim.AdamW's checkpoint in lrfused.AdamW, whose schedule leads, and the other way
    round: near the uninterrupted run of the class that saved."""
    check(cell, became)
