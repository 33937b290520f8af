"""A run that goes on from a checkpoint is the uninterrupted run, whatever carried its state."""

import os
import re

import pytest
from lib.seeds import SEED

from . import cells
from .checking import check
from .launching import OK, launch
from .limits import BETWEEN, DEADLY, LIMITS, OURS, limits_of

# After one that leaves ranks apart, which then fails as it is known to.
NOT_TRIED = "not tried: a cell of the same checkpoint failed before"
DEADLY_WAYS = ("flattened", "disk-flattened")


def parameters(jobs):
    """A test for each cell; what others show as well is slow."""
    return [
        pytest.param(cell, id=cell.split(":")[1], marks=() if job.is_short() else pytest.mark.slow)
        for job in jobs
        for cell in job.cells
        if not re.search(DEADLY, cell)
    ]


def check_limits(cell, became, limits):
    """All is well, or it fails as it is known to, in one way or another."""
    if not limits:
        check(cell, became)
    says = "|".join([NOT_TRIED, *(limit.says for limit in limits)])
    why = "; ".join(limit.why for limit in limits)
    assert not limits or re.search(says, became[cell]), f"{why}:\n{became[cell]}"


@pytest.mark.parametrize("cell", parameters(cells.OURS))
def test_ours_goes_on(cell, became):
    """Parameters, moments, counts, groups and metrics() of lrfused.AdamW are bit-equal to those of
    the uninterrupted run after the load and after each of five steps; one warning says what an
    option of the loading optimizer does otherwise, and without that there is none. Where torch
    cannot carry its own AdamW either, it fails as that does."""
    if became[cell] != OK:
        check_limits(cell, became, limits_of(cell, (*LIMITS, *OURS)))


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


@pytest.mark.slow
@pytest.mark.parametrize("cell", [f"torch:fsdp1-{way}-everything-used" for way in DEADLY_WAYS])
def test_what_ends_torchs_processes(cell, tmp_path):
    """Of FSDP1 with use_orig_params, a flattened state in a used optimizer of torch's ends the
    processes, which is why no cell among the others is of this kind."""
    became = launch(tmp_path, 2, [cell], int(os.environ[SEED]), 60.0)
    assert re.search("Received data size doesn't match", became[cell]), became[cell]
