"""The averages of the weights in place of the weights, for a while or in another model."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.memory.dtensor import local
from lrfused.memory.uninterrupted import uninterrupted
from lrfused.rules.average import AVERAGE

Saved = list[tuple[Tensor, Tensor]]  # a tensor, and its values before


@contextmanager
def averaged(books: Bookkeeping, opt: Optimizer, modules: Iterable[Module]) -> Iterator[None]:
    """Put the averages into the parameters; at the end put back what was there, buffers, too."""
    if books.holds_averages:
        raise RuntimeError("averaged: the parameters hold their averages already")
    params = _averaged_params(books, opt)
    buffers = [buffer for module in _modules(modules) for buffer in module.buffers()]
    saved: Saved = []
    try:
        try:
            books.holds_averages = True
            with torch.no_grad():
                saved += [(x, x.detach().clone()) for x in (*params, *buffers)]
                for param in params:
                    local(param).copy_(_value(opt, param))
            yield
        finally:
            uninterrupted(lambda: _put_back(books, saved))
    except KeyboardInterrupt:  # possibly raised just before that
        uninterrupted(lambda: _put_back(books, saved))
        raise


@torch.no_grad()
def _put_back(books: Bookkeeping, saved: Saved) -> None:
    for tensor, values in saved:
        tensor.copy_(values)
    books.holds_averages = False


@torch.no_grad()
def copy_averages(books: Bookkeeping, opt: Optimizer, source: Module, target: Module) -> None:
    """Fill another model: averages where there are any, all else as it is in the source."""
    if books.holds_averages:
        raise RuntimeError("copy_averages: the parameters hold their averages already")
    _averaged_params(books, opt)
    pairs = list(_pairs("parameter", dict(_named_parameters(source)), _named_parameters(target)))
    pairs += _pairs("buffer", dict(source.named_buffers()), target.named_buffers())
    for own, other in pairs:
        local(other).copy_(_value(opt, own))


def _named_parameters(module: Module) -> Iterator[tuple[str, Tensor]]:
    return module.named_parameters(remove_duplicate=False)


def _pairs(
    what: str, own: dict[str, Tensor], others: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of equal names.

    Raises:
        ValueError: a name is missing, or the shapes differ.
    """
    found = dict(others)
    if different := own.keys() ^ found.keys():
        raise ValueError(f"target: {what} {sorted(different)[0]!r} is in one of the models only")
    for name, tensor in own.items():
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"target: {what} {name!r} has shape {tuple(found[name].shape)}, "
                f"in the source {tuple(tensor.shape)}"
            )
        yield tensor, found[name]


def _averaged_params(books: Bookkeeping, opt: Optimizer) -> list[Tensor]:
    """The parameters that have an average.

    Raises:
        ValueError: no group is averaged.
    """
    books.align(opt.param_groups)
    if not any(options.average_every for options in books.group_options):
        raise ValueError("ema_decay: must be given to the optimizer or a group, to have averages")
    params = (param for group in opt.param_groups for param in group["params"])
    return [param for param in params if AVERAGE.key in (opt.state.get(param) or {})]


def _value(opt: Optimizer, param: Tensor) -> Tensor:
    """The average of a parameter (local), or what has none, itself."""
    average = (opt.state.get(param) or {}).get(AVERAGE.key)
    own = local(param).detach()
    if average is None:
        return own
    values = local(average)
    return torch.where(torch.isnan(values), own.to(values.dtype), values)


def _modules(modules: Iterable[Any]) -> list[Module]:
    for module in modules:
        if not isinstance(module, Module):
            raise TypeError(f"modules: must be torch modules, got {type(module).__name__}")
    return list(modules)
