"""Measure: what has to be known of the gradients before the first parameter may move."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lrfused.backends.reference.arithmetic import (
    gradient_of,
    inverse_scale,
    kept_of,
    units_of,
    without_masked,
)
from lrfused.backends.reference.scalars import GroupPlan
from lrfused.backends.work import Work
from lrfused.numerics.norm import sums_of_squares
from lrfused.numerics.rounding import clamp, scalar


@dataclass
class Measured:
    """Of one gradient, each by unit and chunk: sums of squares (raw, value-clipped, of p)."""

    raw: Tensor
    clipped: Tensor | None
    param: Tensor | None
    largest: Tensor  # absolute values by unit; nan if there is a nan
    tiny: int  # how many elements are zero or subnormal,
    elements: int  # of so many


def measure(work: Work, groups: list[GroupPlan]) -> dict[int, Measured]:
    """The sums and the largest absolute value of every gradient of an active group."""
    if not work.options.measures(work.groups):
        return {}
    return {
        index: _of_gradient(work, index, groups[work.entries[index].group])
        for index in work.gradients
        if groups[work.entries[index].group].active
    }


def _of_gradient(work: Work, index: int, group: GroupPlan) -> Measured:
    entry = work.entries[index]
    options = work.groups[entry.group]
    g = gradient_of(work, index)
    clipped = param = None
    if options.value_clip:
        inverse = scalar(inverse_scale(work), g)
        clipped = sums_of_squares(clamp(g * inverse, scalar(group.clip_bound, g)))
    if options.agc:
        param = sums_of_squares(units_of(entry, without_masked(entry, entry.p.flat.to(g.dtype))))
    magnitude = g.abs().double()
    zero = torch.zeros((g.shape[0], 1), dtype=torch.float64, device=g.device)
    largest = torch.cat([zero, magnitude], 1).amax(1)
    kept = kept_of(entry)
    elements = g.numel() if kept is None else int(kept.sum())
    smallest_normal = max(torch.finfo(t).tiny for t in (work.gradients[index].flat.dtype, g.dtype))
    tiny = int((magnitude < smallest_normal).sum()) - (g.numel() - elements)  # masked ones are 0
    return Measured(sums_of_squares(g), clipped, param, largest, tiny, elements)
