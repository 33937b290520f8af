"""The moments of a parameter, under torch's keys."""

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def allocate(state: dict[str, Tensor], param: Tensor, amsgrad: bool) -> None:
    """The moments that a parameter does not have yet, as torch allocates them."""
    for key in MOMENTS[: 3 if amsgrad else 2]:
        if key not in state:
            state[key] = torch.zeros_like(param, memory_format=torch.preserve_format).detach()
