"""Operations of one rounding, in the compute type."""

import numpy as np
import torch
from torch import Tensor

from lrfused.backends.work import Work
from lrfused.memory.operands import Entry


def compute_type(p: Tensor) -> torch.dtype:
    """The type in which a parameter's arithmetic is done."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def scalar(value: float, like: Tensor) -> Tensor:
    """A 0-dim tensor: the number rounded once to the compute type."""
    return torch.tensor(float(value), dtype=like.dtype, device=like.device)


def square_root(x: Tensor) -> Tensor:
    """The IEEE square root: on a CPU torch's own is off by an ulp in 16% (float64: 1%)."""
    if x.dtype == torch.float32:
        return torch.sqrt(x.double()).float()
    if x.device.type == "cpu":
        return torch.from_numpy(np.sqrt(x.numpy()))
    return torch.sqrt(x)


def clamp(x: Tensor, bound: Tensor) -> Tensor:
    """Value clip by compare and select: nan stays nan."""
    x = torch.where(x > bound, bound, x)
    return torch.where(x < -bound, -bound, x)


def units_of(entry: Entry, flat: Tensor) -> Tensor:
    """A flat vector as a matrix with a row a unit; one row without units."""
    return flat.view(-1, entry.unit) if entry.unit else flat.view(1, -1)


def inverse_scale(work: Work) -> float:
    """What unscales and averages a gradient."""
    scale = float(work.state.loss_scale[0]) * float(work.options.accumulation_steps)
    return float(np.float64(1.0) / np.float64(scale * work.grad_scale))
