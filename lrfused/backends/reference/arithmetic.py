"""What the phases of the reference have in common."""

import numpy as np
import torch
from torch import Tensor

from lrfused.backends.work import Work
from lrfused.memory.bits import unpack
from lrfused.memory.operands import Entry, Operand
from lrfused.numerics.rounding import compute_type


def units_of(entry: Entry, flat: Tensor) -> Tensor:
    """A flat vector as a matrix with a row a unit; one row without units."""
    return flat.view(-1, entry.unit) if entry.unit else flat.view(1, -1)


def kept_of(entry: Entry) -> Tensor | None:
    """Which elements a mask keeps, as a bool vector; None without a mask."""
    return None if entry.mask is None else unpack(entry.mask, entry.p.flat.numel())


def without_masked(entry: Entry, flat: Tensor) -> Tensor:
    """A flat vector in which masked elements are 0, whatever they were."""
    kept = kept_of(entry)
    return flat if kept is None else torch.where(kept, flat, torch.zeros_like(flat))


def gradient_of(work: Work, index: int) -> Tensor:
    """A gradient by units, in the compute type, without what is masked."""
    entry = work.entries[index]
    g = work.gradients[index].flat.to(compute_type(entry.p.flat))
    return units_of(entry, without_masked(entry, g))


def used_operands(work: Work, entry: Entry) -> list[Operand]:
    """The operands of the rule that a parameter's group uses."""
    used = work.rule.operands_used(work.groups[entry.group])
    return [operand for operand in entry.state[:used] if operand is not None]


def inverse_scale(work: Work) -> float:
    """What unscales and averages a gradient."""
    scale = float(work.state.loss_scale[0]) * float(work.options.accumulation_steps)
    return float(np.float64(1.0) / np.float64(scale * work.grad_scale))
