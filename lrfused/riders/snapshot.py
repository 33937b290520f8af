"""Snapshot: everything that steps have changed, copied, to go back to it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.memory.dtensor import is_distributed, placing
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.riders.refusals import has_memory, refuse_now
from lrfused.settings.cells import checked
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot
from lrfused.state.device_state import PERSISTENT, Field
from lrfused.state.operands import operands_in

GroupList = list[dict[str, Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """Where an optimizer and its parameters stood; see `FusedOptimizer.snapshot`.

    Lists have an item for each group or parameter, in the optimizer's order. It is plain data and
    tensors: ``torch.save`` and ``torch.load(..., weights_only=True)`` take it wherever lrfused is
    imported.

    Attributes:
        optimizer: the name of the rule.
        groups: the number of parameters ("size"); the values of hyperparameters without schedule
            ("numbers"), and of those written over schedules, each with the mirror that it was
            written over ("overrides"), by name; those of schedules' inputs ("inputs"), by
            hyperparameter and name; the keys of the products that were kept ("products").
        weights: a copy of each parameter, of a DTensor its local tensor.
        placings: how a DTensor is distributed; "" for others.
        operands: a copy of each state tensor, by its key in the optimizer's state.
        counts: int64, the updates of each parameter.
        carried: float64, (parameters, numbers carried from update to update).
        counters: the step, the other persistent counters and the loss scale, by name.
    """

    optimizer: str
    groups: list[dict[str, Any]]
    weights: list[Tensor]
    placings: list[str]
    operands: list[dict[str, Tensor]]
    counts: Tensor
    carried: Tensor
    counters: dict[str, float]

    @property
    def nbytes(self) -> int:
        """The bytes of all its tensors."""
        states = [tensor for operands in self.operands for tensor in operands.values()]
        tensors = (*self.weights, *states, self.counts, self.carried)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def step(self) -> int:
        """The number of completed steps."""
        return int(self.counters["step"])

    def __repr__(self) -> str:
        return f"<Snapshot of {self.optimizer} at step {self.step}, {self.nbytes} bytes>"


# Its fields are plain data, and nothing runs as it is unpickled.
torch.serialization.add_safe_globals([Snapshot])


@normal_tensors()
def take(books: Bookkeeping, opt: Optimizer, device: Any) -> Snapshot:
    """Copy everything to a device, or where it is.

    Raises:
        TypeError, ValueError: ``device`` is none, or a tensor has no memory.
        RuntimeError: a CUDA graph is being captured, or a step on a GPU was refused and the error
            was not yet raised.
    """
    target, groups, states = _device(device), opt.param_groups, opt.state
    refuse_now("snapshot", books, groups)
    reading = books.read(groups, states)
    counts = books.count(groups, states)
    params = parameters(groups)
    has_scale = books.options.loss_scale is not None
    fields = (*PERSISTENT, Field.LOSS_SCALE) if has_scale else PERSISTENT
    return Snapshot(
        books.rule.name,
        [_group(books, g, group) for g, group in enumerate(groups)],
        [_copy("a parameter", param, target) for param in params],
        [placing_of(param) for param in params],
        [
            {key: _copy(key, tensor, target) for key, tensor in operands_in(books.rule, state)}
            for state in (states.get(param) or {} for param in params)
        ],
        _copy("counts", counts.counts, target),
        _copy("carried", counts.carried, target),
        {field.name.lower(): reading[field] for field in fields},
    )


def parameters(groups: GroupList) -> list[Tensor]:
    """The parameters of all groups, in order."""
    return [param for group in groups for param in group["params"]]


def placing_of(param: Tensor) -> str:
    """How a DTensor is distributed, and which part of it this process has."""
    if not is_distributed(param):
        return ""
    mesh, placements = placing(param)
    return f"{placements} at {mesh.get_coordinate()} of {tuple(mesh.shape)}"


def products(books: Bookkeeping, options: GroupOptions) -> list[str]:
    """The keys of the products that are kept with these options; without, they stay as they are."""
    return [c.key for c in books.rule.carried if c.slot is not None and c.matters(options)]


def _device(device: Any) -> torch.device | None:
    if device is None:
        return None
    try:
        target = torch.device(device)
    except (TypeError, RuntimeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"device: must be a device or None, got {device!r}") from error
    if target.type == "meta":
        raise ValueError("device: must have memory, got 'meta'")
    return target


def _copy(what: str, tensor: Tensor, device: torch.device | None) -> Tensor:
    present = has_memory(f"snapshot: {what}", tensor).detach()
    return present.to(device=present.device if device is None else device, copy=True)


def _group(books: Bookkeeping, g: int, group: dict[str, Any]) -> dict[str, Any]:
    row = books.hyper.rows[g]
    numbers: dict[str, float] = {}
    overrides: dict[str, list[float | None]] = {}
    for slot in books.hyper.slots:
        host, cell, name = checked(g, slot, group), row.cells[slot], slot.name.lower()
        if cell.schedule is None:
            numbers[name] = float(host)
        elif not cell.is_mirrored(host):
            overrides[name] = [float(host), cell.mirror]
    inputs = {s.name.lower(): c.input_values() for s, c in zip(Slot, row.cells, strict=True)}
    return {
        "size": len(group["params"]),
        "numbers": numbers,
        "overrides": overrides,
        "inputs": {name: values for name, values in inputs.items() if values},
        "products": products(books, books.group_options[g]),
    }
