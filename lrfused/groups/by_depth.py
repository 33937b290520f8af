"""layerwise: the parameter groups of a model by depth, each with its own learning rate."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.nn import Module, Parameter

from lrfused.groups.depths import depths_by_blocks, depths_by_function, named_once
from lrfused.schedules import Schedule
from lrfused.schedules.check import boolean, nonnegative, positive

Lr = Schedule | float


def layerwise(
    model: Module,
    lr: Lr | Sequence[Lr] | Callable[[int, int], Lr],
    *,
    layer_decay: float | None = None,
    blocks: str | Sequence[str] | None = None,
    depth: Callable[[str], int] | None = None,
    exclude_1d: bool = False,
    named: bool = False,
) -> list[dict[str, Any]]:
    """The parameter groups of a model by depth, each with its own learning rate or schedule.

    Formula, for a parameter of depth d, where D is the largest depth:
        lr                             a number or Schedule
        lr[d]                          a sequence of D + 1 of them
        lr(d, D)                       a function that returns one
        times layer_decay ** (D - d)   if layer_decay is given (ELECTRA, BEiT)

    Depth: parameters before the blocks (the embedding) come first, then every block, then what is
    after the blocks (the head), in the order of ``model.named_parameters()`` and numbered from 0
    without gaps. The blocks are the children that have parameters of the model's longest ModuleList
    or Sequential, or of the modules named by ``blocks``; or ``depth`` gives every depth itself.
    Every parameter is in exactly one group, frozen ones too; a shared one under its first name
    (an output layer tied to the embedding has the embedding's depth).

    Args:
        model: a module with parameters.
        lr: a number >= 0, a Schedule, a sequence with one for every depth, or a function of the
            depth and the largest depth.
        layer_decay: factor of the lr from one depth to the one before it, > 0, usually 0.65 to 0.9.
        blocks: names of the modules whose children are the blocks, in order, "encoder.layer" or
            ["layer1", "layer2", "layer3", "layer4"].
        depth: a function from a parameter's name to its depth, a whole number >= 0.
        exclude_1d: no weight decay for parameters with at most one dimension (biases, norms): they
            become groups of their own with ``weight_decay`` 0.
        named: (name, parameter) pairs in the groups, for the optimizer's ``param_names``.

    Returns:
        groups for the constructor of an optimizer, by increasing depth, with the keys params, lr,
        depth, and weight_decay where it is 0. Everything else is the optimizer's default.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the model has no parameters, no blocks, or two longest containers side by side;
            both blocks and depth are given; one of the blocks' containers is inside another or
            given twice; an lr is missing, negative or not finite, or is not with layer_decay.

    Example:
        >>> import torch, lrfused
        >>> from lrfused import groups, schedules
        >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(3)])
        >>> lr = schedules.warmup_cosine(1e-3, warmup_steps=10, total_steps=100)
        >>> opt = lrfused.AdamW(groups.layerwise(model, lr, layer_decay=0.5))
        >>> opt.set_step(10)
        >>> [(group["depth"], group["lr"]) for group in opt.param_groups]
        [(0, 0.00025), (1, 0.0005), (2, 0.001)]

        Deep layers that decay more slowly than shallow ones:

        >>> slower = lambda depth, deepest: schedules.cosine(1e-3, 0.0, steps=100 * (depth + 1))
        >>> [round(group["lr"](100), 6) for group in groups.layerwise(model, slower)]
        [0.0, 0.0005, 0.00075]

    Source: Clark et al., ELECTRA, arXiv 2003.10555; Bao et al., BEiT, arXiv 2106.08254;
    timm.optim.param_groups_layer_decay.
    """
    boolean("exclude_1d", exclude_1d)
    boolean("named", named)
    params = named_once(model)
    if blocks is not None and depth is not None:
        raise ValueError("blocks: must be left out with depth, which gives every depth itself")
    if depth is None:
        depths = depths_by_blocks(model, list(params), blocks)
    else:
        depths = depths_by_function(list(params), depth)
    deepest = max(depths.values())
    lrs = _lrs(lr, layer_decay, deepest, set(depths.values()))

    def is_excluded(name: str) -> bool:
        return exclude_1d and params[name].ndim <= 1

    members: dict[tuple[int, bool], list[Any]] = {}
    for name, param in params.items():
        member: Parameter | tuple[str, Parameter] = (name, param) if named else param
        members.setdefault((depths[name], is_excluded(name)), []).append(member)
    return [
        {
            "params": members[at, excluded],
            "lr": lrs[at],
            "depth": at,
            **({"weight_decay": 0.0} if excluded else {}),
        }
        for at, excluded in sorted(members)
    ]


def _lrs(lr: Any, layer_decay: float | None, deepest: int, depths: set[int]) -> dict[int, Lr]:
    """The lr of every depth that occurs."""
    if layer_decay is not None:
        layer_decay = positive("layer_decay", layer_decay)
    is_sequence = isinstance(lr, Sequence) and not isinstance(lr, str)
    if is_sequence and len(lr) != deepest + 1:
        raise ValueError(
            f"lr: must have one value for every depth from 0 to {deepest}, got {len(lr)}"
        )
    found: dict[int, Lr] = {}
    for depth in sorted(depths):
        name, value = "lr", lr
        if is_sequence:
            name, value = f"lr[{depth}]", lr[depth]
        elif callable(lr) and not isinstance(lr, Schedule):
            name, value = f"lr({depth}, {deepest})", lr(depth, deepest)
        found[depth] = _scaled(name, value, layer_decay, deepest - depth)
    return found


def _scaled(name: str, value: Any, layer_decay: float | None, layers: int) -> Lr:
    """The checked lr times ``layer_decay`` for each of the layers above."""
    if layer_decay is None:
        return value if isinstance(value, Schedule) else nonnegative(name, value)
    size = 1.0 if isinstance(value, Schedule) else nonnegative(name, value)
    try:
        scaled = size * layer_decay**layers
    except OverflowError:
        scaled = math.inf
    if not math.isfinite(scaled):
        raise ValueError(
            f"layer_decay: its power, times the lr, must be finite, got {layer_decay} ** {layers}"
        )
    # A factor of 1 stays in the schedule: schedules of one form are computed by one program.
    return value.scaled(scaled) if isinstance(value, Schedule) else scaled
