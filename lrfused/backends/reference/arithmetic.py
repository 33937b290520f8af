"""What the phases of the reference have in common."""

import numpy as np
from torch import Tensor

from lrfused.backends.work import Work
from lrfused.memory.operands import Entry


def units_of(entry: Entry, flat: Tensor) -> Tensor:
    """A flat vector as a matrix with a row a unit; one row without units."""
    return flat.view(-1, entry.unit) if entry.unit else flat.view(1, -1)


def inverse_scale(work: Work) -> float:
    """What unscales and averages a gradient."""
    scale = float(work.state.loss_scale[0]) * float(work.options.accumulation_steps)
    return float(np.float64(1.0) / np.float64(scale * work.grad_scale))
