"""Random gradients, as each way of laying parameters out would have made them."""

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, distribute_tensor


def seeded(*key: Any) -> torch.Generator:
    """The same numbers for the same key, on every rank."""
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))


def of_rank(setting: str) -> tuple[int, ...]:
    """What is a rank's own where its parameters are: those of FSDP1."""
    return (distributed.get_rank(),) if setting in ("fsdp1", "fsdp1flat") else ()


def gradients(setting: str, params: Sequence[Tensor], *key: Any) -> list[Tensor]:
    """Random ones of norm below 1; those of FSDP1 differ from rank to rank, as its shards do."""
    key = (*key, *of_rank(setting))
    sizes = [p.numel() for p in params]
    numbers = 0.05 * torch.randn(sum(sizes), generator=seeded(*key))
    whole = [part.view(p.shape) for p, part in zip(params, numbers.split(sizes), strict=True)]
    return [spread(p, g.to(p.dtype)) for p, g in zip(params, whole, strict=True)]


def spread(param: Tensor, whole: Tensor) -> Tensor:
    """A tensor of the parameter's shape that lies as the parameter does."""
    if not isinstance(param, DTensor):
        return whole.clone()
    return distribute_tensor(whole, param.device_mesh, param.placements, src_data_rank=None)


def is_elsewhere(param: Tensor) -> bool:
    """FSDP1 gives no gradient to a parameter of which other ranks hold everything."""
    return param.numel() == 0
