"""Setting, changing and taking away the masks of an optimizer's parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.memory.uninterrupted import uninterrupted
from lrfused.riders.refusals import has_memory, refuse_now
from lrfused.state.masks import KEY, check_fits, clear
from lrfused.state.operands import operands_in

Given = Mapping[Tensor, Tensor | None]


@normal_tensors()
def set_masks(books: Bookkeeping, opt: Optimizer, masks: Given) -> None:
    """Set these masks (None: take one away); masked weights and their state become 0 at once."""
    refuse_now("masks", books, opt.param_groups)
    _check(books, opt, masks)
    uninterrupted(lambda: _commit(books, opt, masks))


def _commit(books: Bookkeeping, opt: Optimizer, masks: Given) -> None:
    for param, mask in masks.items():
        if mask is None:
            books.masks.take_away(param, keeps_memory=books.is_captured)
            opt.state.get(param, {}).pop(KEY, None)
        else:
            books.masks.set(param, mask)
    books.masks.mark(opt.state, [param for param in masks if opt.state.get(param)])
    clear_masked(books, opt, {param: mask for param, mask in masks.items() if mask is not None})


def clear_masked(books: Bookkeeping, opt: Optimizer, masks: Mapping[Tensor, Tensor]) -> None:
    """Make masked weights and their state 0."""
    for param, mask in masks.items():
        clear((param, *(x for _, x in operands_in(books.rule, opt.state.get(param) or {}))), mask)


def _check(books: Bookkeeping, opt: Optimizer, masks: Given) -> None:
    if not isinstance(masks, Mapping):
        raise TypeError(
            f"masks: must be a dictionary {{parameter: bool tensor}}, got {type(masks).__name__}"
        )
    known = {id(param) for group in opt.param_groups for param in group["params"]}
    for param, mask in masks.items():
        gone = mask is None and isinstance(param, Tensor) and param in books.masks
        if not isinstance(param, Tensor) or (id(param) not in known and not gone):
            raise ValueError(f"masks: {_named(param)} is not a parameter of this optimizer")
        if mask is None:
            continue
        _check_mask(param, mask)
        has_memory("masks: a parameter", param)
        if books.is_captured and param not in books.masks:
            raise RuntimeError(
                f"masks: {_named(param)} had no mask when a step was captured in a CUDA graph, "
                "which reads those that there were; set one (all True) before the capture"
            )


def _named(param: Any) -> str:
    shape = f" of shape {tuple(param.shape)}" if isinstance(param, Tensor) else ""
    return f"a {type(param).__name__}{shape}"


def _check_mask(param: Tensor, mask: Any) -> None:
    what = f"masks: the mask of a parameter of shape {tuple(param.shape)}"
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.layout != torch.strided:
        kind = f"a {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{what} must be a dense tensor of bools, got {kind}")
    check_fits(what, mask, param)
    if mask.device != param.device:
        raise ValueError(f"{what} must be on its device {param.device}, got {mask.device}")
