"""Random masks, as each way of laying parameters out would have made them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .gradients import of_rank, seeded, spread


def random_masks(
    setting: str, params: Sequence[Tensor], kept: float, *key: Any
) -> dict[Tensor, Tensor]:
    """True for about so many elements; those of FSDP1 differ from rank to rank."""
    numbers = seeded(*key, *of_rank(setting))
    return {p: spread(p, torch.rand(p.shape, generator=numbers) < kept) for p in params}


def present(masks: Mapping[int, tuple[str, ...]], step: int) -> tuple[str, ...]:
    """What sets masks where there are some before this step; by block, as in a scenario."""
    found: dict[int, str] = {}
    for t in sorted(masks):
        if t < step:
            found |= {block: does for block, does in enumerate(masks[t]) if does}
    blocks = range(max(found, default=-1) + 1)
    return tuple("set" if found.get(block) == "set" else "" for block in blocks)
