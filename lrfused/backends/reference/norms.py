"""Norms: what plan makes of the sums that were measured."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from lrfused.backends.reference.arithmetic import inverse_scale
from lrfused.backends.reference.measure import Measured
from lrfused.backends.reference.scalars import GroupPlan, agc_coefficient, propagating_maximum
from lrfused.backends.work import Work
from lrfused.numerics.norm import combine
from lrfused.numerics.rounding import compute_type, scalar


def agc_coefficients(work: Work, group: GroupPlan, sums: Measured) -> np.ndarray:
    """What adaptive clipping multiplies each unit by (a tensor is one unit)."""
    if sums.param is None:
        return np.ones(len(sums.raw))
    pairs = zip(_unscaled(work, sums), sums.param, strict=True)
    return np.array([agc_coefficient(group.agc, combine(g), combine(p)) for g, p in pairs])


def _unscaled(work: Work, sums: Measured) -> Tensor:
    """Sums of squares of the unscaled, averaged, value-clipped gradient."""
    if sums.clipped is not None:
        return sums.clipped
    inverse = np.float64(inverse_scale(work))
    return sums.raw * float(inverse * inverse)


def norms(
    work: Work, groups: list[GroupPlan], measured: dict[int, Measured], agc: dict[int, np.ndarray]
) -> tuple[float, float, float]:
    """(norm before any clip, norm that the global clip sees, largest absolute raw gradient)."""
    inverse = inverse_scale(work)
    raw, seen, largest, largest_seen = [], [], 0.0, 0.0
    clips = any(o.value_clip or o.agc for o in work.groups)
    for index, entry in enumerate(work.entries):
        if index not in measured:
            chunks = torch.zeros(work.chunks[index], dtype=torch.float64, device="cpu")
            raw.append(chunks)
            seen.append(chunks)
            continue
        sums = measured[index]
        factors = torch.from_numpy(agc[index])
        raw.append(sums.raw.reshape(-1).cpu())
        seen.append((_unscaled(work, sums).cpu() * (factors * factors)[:, None]).reshape(-1))
        bound = groups[entry.group].clip_bound if work.groups[entry.group].value_clip else np.inf
        for magnitude, factor in zip(sums.largest.tolist(), factors.tolist(), strict=True):
            scaled = magnitude * inverse
            scaled = (bound if scaled > bound else scaled) * factor
            largest = propagating_maximum(largest, magnitude)
            largest_seen = propagating_maximum(largest_seen, scaled)
    if work.options.infinity_norm:
        before = largest * inverse
        return before, largest_seen if clips else before, largest
    before = float(np.sqrt(combine(torch.cat(raw))) * inverse) if raw else 0.0
    if not clips:
        return before, before, largest
    return before, float(np.sqrt(combine(torch.cat(seen)))), largest


def tiny_share(measured: Collection[Measured]) -> float:
    """The share of gradient elements that are zero or subnormal; nan of none."""
    elements = sum(sums.elements for sums in measured)
    return sum(sums.tiny for sums in measured) / elements if elements else float("nan")


def overflows(work: Work, index: int, sums: Measured) -> bool:
    """A gradient is not finite, before or after it is unscaled in the compute type."""
    like = torch.zeros(1, dtype=compute_type(work.entries[index].p.flat), device="cpu")
    inverse = scalar(inverse_scale(work), like)
    return not bool(torch.isfinite(sums.largest.cpu().to(like.dtype) * inverse).all())
