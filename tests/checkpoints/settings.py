"""How parameters lie: in one process, replicated, by FSDP2, FSDP1 (also unsharded), under ZeRO."""

from collections.abc import Callable
from typing import Any

import torch
from lib.optimizers import Kind
from torch import distributed
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import Linear, Module, Sequential

from .gradients import seeded
from .quiet import import_zero

CLASSES: dict[str, Callable[[Kind], type]] = {
    "torch": lambda kind: kind.counterpart,
    "lrfused": lambda kind: kind.cls,
}
CPU = torch.device("cpu")
UNITS = 3  # more blocks than that are one unit of FSDP


def layers(count: int, seed: int, halved: int | None = None) -> list[Module]:
    """Three layers of sizes that no number of ranks divides, or many small ones.

    One of them may be in bfloat16.
    """
    if count == UNITS:
        made: list[Module] = [Linear(3, 5), Linear(5, 4), Linear(4, 2)]
    else:
        made = [Linear(2, 3, bias=False) for _ in range(count)]
    values = seeded(seed, "values")
    with torch.no_grad():
        for param in (p for layer in made for p in layer.parameters()):
            param.copy_(torch.randn(param.shape, generator=values))
    if halved is not None:
        made[halved].bfloat16()
    return made


def lay(setting: str, blocks: list[Module]) -> tuple[Module, list[Module]]:
    """The model of these blocks in a setting, and its blocks."""
    several = len(blocks) <= UNITS
    if setting == "replicated":
        return torch.nn.parallel.DistributedDataParallel(Sequential(*blocks)), blocks
    if setting == "fsdp2":
        mesh = distributed.device_mesh.init_device_mesh("cpu", (distributed.get_world_size(),))
        model = Sequential(*blocks)
        for block in [*(blocks if several else []), model]:
            fully_shard(block, mesh=mesh)
        return model, blocks
    if setting.startswith("fsdp1"):
        own = {"use_orig_params": setting != "fsdp1flat", "device_id": CPU}
        if setting == "fsdp1whole":
            own["sharding_strategy"] = ShardingStrategy.NO_SHARD
        if several:
            blocks = [FullyShardedDataParallel(block, **own) for block in blocks]
        return FullyShardedDataParallel(Sequential(*blocks), **own), blocks
    return Sequential(*blocks), blocks


def optimizer(
    setting: str, kind: Kind, whose: str, groups: list[dict[str, Any]], options: dict[str, Any]
) -> torch.optim.Optimizer:
    """An optimizer of the class, inside of ZeroRedundancyOptimizer under ZeRO."""
    cls, options = CLASSES[whose](kind), {**kind.options, **options}
    if setting == "zero":
        return import_zero()(groups, cls, **options)
    if setting == "fsdp1whole" and whose == "lrfused":
        options = {**options, "sharded": False}
    return cls(groups, **options)


def inner(opt: torch.optim.Optimizer) -> Any:
    """The optimizer that steps: ZeRO's own, or this one."""
    return getattr(opt, "optim", opt)


def local(value: Any) -> Any:
    """What this rank holds of a DTensor; any other value itself."""
    return value.to_local() if isinstance(value, DTensor) else value
