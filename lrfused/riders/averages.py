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
from lrfused.riders.refusals import has_memory, refuse_now
from lrfused.rules.average import AVERAGE

Saved = list[tuple[Tensor, Tensor]]  # a tensor, and its values before
Averages = dict[Tensor, Tensor]  # by parameter


@contextmanager
def averaged(books: Bookkeeping, opt: Optimizer, modules: Iterable[Module]) -> Iterator[None]:
    """Put the averages into the parameters; at the end put back what was there, buffers, too."""
    refuse_now("averaged", books, opt.param_groups)
    averages, modules = _averages(books, opt), _modules(modules)
    buffers = [buffer for module in modules for buffer in module.buffers()]
    for tensor in (*averages, *buffers):
        has_memory("averaged: a tensor", tensor)
    saved: Saved = []
    try:
        try:
            books.holds_averages = True
            with torch.no_grad():
                saved += [(x, x.detach().clone()) for x in (*averages, *buffers)]
                for param, average in averages.items():
                    local(param).copy_(_value(param, average))
            _reshard(modules)
            yield
        finally:
            uninterrupted(lambda: _put_back(books, saved, modules))
    except KeyboardInterrupt:  # possibly raised just before that
        uninterrupted(lambda: _put_back(books, saved, modules))
        raise


@torch.no_grad()
def _put_back(books: Bookkeeping, saved: Saved, modules: list[Module]) -> None:
    """As much as can be; what cannot, since it was given another shape inside, is raised then."""
    failed = None
    for tensor, values in saved:
        try:
            tensor.copy_(values)
        except RuntimeError as error:
            failed = error
    _reshard(modules)
    books.holds_averages = False
    if failed is not None:
        raise failed


def _reshard(modules: list[Module]) -> None:
    """FSDP2 computes with gathered parameters as long as it has them: it is to gather anew."""
    for module in modules:
        for part in module.modules():
            if callable(reshard := getattr(part, "reshard", None)):
                reshard()


@torch.no_grad()
def copy_averages(books: Bookkeeping, opt: Optimizer, source: Module, target: Module) -> None:
    """Fill another model: averages where there are any, all else as it is in the source."""
    refuse_now("copy_averages", books, opt.param_groups)
    averages = _averages(books, opt)
    _modules((source, target))
    pairs = list(_pairs("parameter", _parameters(source), _parameters(target)))
    if not averages.keys() & {own for own, _ in pairs}:
        raise ValueError("source: none of its parameters has an average in this optimizer")
    pairs += _pairs("buffer", _buffers(source), _buffers(target))
    if {id(own) for own, _ in pairs} & {id(other) for _, other in pairs}:
        raise ValueError("target: must be another model, it shares tensors with the source")
    for own, other in pairs:
        if other.is_meta:
            raise ValueError("target: is on the meta device: it has no values")
        has_memory("source: a tensor", own)
        has_memory("target: a tensor", other)
    for own, other in pairs:
        local(other).copy_(_value(own, averages.get(own)))


def _parameters(module: Module) -> dict[str, Tensor]:
    return dict(module.named_parameters(remove_duplicate=False))


def _buffers(module: Module) -> dict[str, Tensor]:
    return dict(module.named_buffers(remove_duplicate=False))


def _pairs(
    what: str, own: dict[str, Tensor], others: dict[str, Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of equal names.

    Raises:
        ValueError: a name is missing, or the shapes differ.
    """
    if different := own.keys() ^ others.keys():
        raise ValueError(f"target: {what} {sorted(different)[0]!r} is in one of the models only")
    for name, tensor in own.items():
        if tensor.shape != others[name].shape:
            raise ValueError(
                f"target: {what} {name!r} has shape {tuple(others[name].shape)}, "
                f"in the source {tuple(tensor.shape)}"
            )
        yield tensor, others[name]


def _averages(books: Bookkeeping, opt: Optimizer) -> Averages:
    """Those of groups that are averaged now; another group's may be old.

    Raises:
        ValueError: no group is averaged.
    """
    books.align(opt.param_groups)
    if not any(options.average_every for options in books.group_options):
        raise ValueError("ema_decay: must be given to the optimizer or a group, to have averages")
    return {
        param: state[AVERAGE.key]
        for options, group in zip(books.group_options, opt.param_groups, strict=True)
        for param in group["params"]
        if options.average_every and AVERAGE.key in (state := opt.state.get(param) or {})
    }


def _value(param: Tensor, average: Tensor | None) -> Tensor:
    """The average of a parameter (local), or what has none, itself."""
    own = local(param).detach()
    if average is None:
        return own
    values = local(average)
    return torch.where(torch.isnan(values), own.to(values.dtype), values)


def _modules(modules: Iterable[Any]) -> list[Module]:
    """The same as a list.

    Raises:
        TypeError: something is not a module.
    """
    found = list(modules)
    for module in found:
        if not isinstance(module, Module):
            raise TypeError(f"modules: must be torch modules, got {type(module).__name__}")
    return found
