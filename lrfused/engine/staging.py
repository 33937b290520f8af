"""A step in which some tensors cannot be used in place and are staged through copies."""

import torch

from lrfused.backends.protocol import Runner
from lrfused.backends.work import Outcome, Work
from lrfused.memory.operands import Operand
from lrfused.memory.uninterrupted import uninterrupted


@torch.no_grad()
def run_with_copies(run: Runner, work: Work, places: list[int]) -> Outcome:
    """Run the step, copying tensors that cannot be used in place to buffers and back.

    ``places`` are the indices of the gradients that the guard did not accept, and of entries that
    are staged without a gradient.
    """
    copies: list[Operand] = []
    for index in places:
        entry = work.entries[index]
        copies += [operand for operand in entry.operands if operand.staged is not None]
        if entry.param.grad is None:
            continue
        gradient = Operand.of(entry.param.grad, entry.order)
        work.gradients[index] = gradient
        work.addresses[index] = gradient.row[:2]
        if work.options.changes_gradients:
            copies.append(gradient)
    for operand in copies:
        operand.refresh()
    try:
        try:
            return run(work)
        finally:
            _write_back(copies)
    except KeyboardInterrupt:  # possibly raised just before _write_back
        _write_back(copies)
        raise
    finally:
        work.gradients = {}


def _write_back(operands: list[Operand]) -> None:
    """Copy all results back to their tensors; a keyboard interrupt is raised afterwards."""
    left = list(operands)

    def write_the_rest() -> None:
        while left:
            left[-1].write_back()
            left.pop()

    uninterrupted(write_the_rest)
