"""The average of the weights, which follows any rule's update: its operand, weight and update."""

import math

import torch
from torch import Tensor

from lrfused.rules.operand import StateOperand

# An element without a value yet is nan, so that the first update is seen to be the first.
AVERAGE = StateOperand(
    "average",
    "lrfused_average",
    lambda options: options.average_every > 0,
    initial=math.nan,
    widens=True,
)
NOT_NOW = -1.0


def average_weight(decay: float, every: int, step: int) -> float:
    """The weight of the parameters in this step's update of their averages, or NOT_NOW."""
    return 1.0 - decay if every and step % every == 0 else NOT_NOW


def update_average(a: Tensor, p: Tensor, weight: Tensor) -> Tensor:
    """The average after an update, as torch.lerp(a, p, weight); p where there was none.

    As in csrc/riders/average.h; all in the compute type, p as it was stored.
    """
    change = p - a
    mixed = torch.where(weight < 0.5, a + change * weight, p - change * (1.0 - weight))
    return torch.where(torch.isnan(a), p, mixed)
