"""Schedule inputs: a stored value belongs to a group and slot, not just to a name."""

import math
from collections import ChainMap
from collections.abc import Mapping

import torch
from torch import Tensor

from lrfused.groups.stored import Stored
from lrfused.schedules import Schedule
from lrfused.settings.cells import Settings
from lrfused.settings.slots import SLOTS, Slot


class Inputs:
    """The inputs of an optimizer's schedules, looked up by name from a group and slot."""

    def __init__(self, rows: list[Settings]):
        self._in_slot: dict[tuple[int, Slot], dict[str, Tensor]] = {}
        self._in_group: dict[int, dict[str, Tensor]] = {}
        everywhere: dict[str, dict[int, Tensor]] = {}
        for g, settings in enumerate(rows):
            for slot, cell in zip(SLOTS, settings.cells, strict=True):
                for node in () if cell.schedule is None else cell.schedule.inputs:
                    tensor, name = node._payload
                    self._in_slot.setdefault((g, slot), {})[name] = tensor
                    self._in_group.setdefault(g, {})[name] = tensor
                    everywhere.setdefault(name, {})[id(tensor)] = tensor
        only = {name: list(tensors.values()) for name, tensors in everywhere.items()}
        self._unambiguous = {name: one[0] for name, one in only.items() if len(one) == 1}

    def near(self, g: int, slot: Slot) -> Mapping[str, Tensor]:
        """Tensors by name for a schedule in this group and slot.

        A name is resolved in the slot itself, else in its group, else anywhere if unambiguous.
        """
        in_slot, in_group = self._in_slot.get((g, slot), {}), self._in_group.get(g, {})
        return ChainMap(in_slot, in_group, self._unambiguous)


def input_values(
    rows: list[Settings], stored: list[Stored | None], schedules: list[dict[Slot, Schedule]]
) -> list[tuple[Tensor, float]]:
    """The input tensors of the schedules that will be used, with the values stored for them.

    Raises:
        ValueError: a tensor cannot hold its value.
    """
    values = []
    for g, (settings, one) in enumerate(zip(rows, stored, strict=True)):
        for slot, named in one.inputs.items() if one else ():
            schedule = schedules[g].get(slot, settings.cells[slot].schedule)
            for node in schedule.inputs if schedule is not None else ():
                tensor, name = node._payload
                if name not in named:
                    continue
                if not fits(named[name], tensor):
                    raise ValueError(
                        f"input {name} of {slot.name.lower()} of group {g} cannot be "
                        f"{named[name]} in {tensor.dtype}"
                    )
                values.append((tensor, named[name]))
    return values


def fits(value: float, tensor: Tensor) -> bool:
    """True if the tensor can be filled with the value."""
    if not (tensor.dtype.is_floating_point or math.isfinite(value)):
        return False
    try:
        torch.empty(1, dtype=tensor.dtype, device="cpu").fill_(value)
    except RuntimeError:
        return False
    return not tensor.is_inference()
