"""What stands in parameter groups besides torch's keys, so that it travels with them.

torch has many ways of carrying an optimizer: sharded, flattened by parameter, gathered, broadcast,
under other names. Tensors of no dimension, numbers and strings in the groups, in memory too, come
through all of them; nested dictionaries, vectors and keys that are sometimes there do not.
"""

import math
from typing import Any

import torch

from lrfused.memory.normal_tensors import normal_tensors
from lrfused.settings.cells import number_or_nan
from lrfused.state.device_state import PERSISTENT, Field, Reading

TEXT = "lrfused"  # schedules and options, as JSON: text.py
NUMBER = "lrfused_group"  # whose settings the group has
BY_PLACE = -1  # in a checkpoint: of the group that has the same place in the list
FIELDS = (*PERSISTENT, Field.LOSS_SCALE)
NAMES = {field: f"lrfused_{field.name.lower()}" for field in FIELDS}
STEP = NAMES[Field.STEP]
NOTHING = -1.0  # in place of the step: nothing was saved so far
LOWEST = {STEP: NOTHING, NAMES[Field.HYSTERESIS_TRACKER]: -(2.0**62)}
KEYS = (TEXT, NUMBER, *NAMES.values())


class Carried:
    """The tensors that show an optimizer's counters and loss scale: in all groups the same ones.

    They hold what there was at the last ``state_dict()``; before, the step is -1. The loss scale is
    0 where there is none.
    """

    @normal_tensors()
    def __init__(self) -> None:
        zero = torch.zeros((), dtype=torch.float64, device="cpu")
        self.tensors = {name: zero.clone() for name in NAMES.values()}
        self.tensors[STEP].fill_(NOTHING)
        self._taken: torch.Tensor | None = None  # of a checkpoint that counts since the last step

    def fill(self, reading: Reading, has_scale: bool) -> None:
        """The present values, in place: whoever holds the tensors sees them."""
        for field, name in NAMES.items():
            shown = field != Field.LOSS_SCALE or has_scale
            self.tensors[name].fill_(reading[field] if shown else 0.0)

    def put_into(self, groups: list[dict[str, Any]]) -> None:
        """Let all groups have these tensors."""
        for group in groups:
            if group.get(STEP) is not self.tensors[STEP]:
                group.update(self.tensors)

    def were_replaced(self, groups: list[dict[str, Any]]) -> bool:
        """Somebody loaded a checkpoint behind our back: no group has ours any more.

        ZeroRedundancyOptimizer does, and shows it again and again until the next step is done; a
        single copy of a group does not count.
        """
        own = self.tensors[STEP]
        if groups and self._taken is not None and groups[0].get(STEP) is self._taken:
            return False
        return bool(groups) and all(
            isinstance(group, dict) and group.get(STEP, own) is not own for group in groups
        )

    def remember_taken(self, step: torch.Tensor | None) -> None:
        """The checkpoint with this tensor was taken over; it may be shown again until a step."""
        self._taken = step

    def forget_taken(self) -> None:
        """A step is done: what is shown from now on was loaded after it."""
        self._taken = None


def counters_in(groups: list[dict[str, Any]]) -> dict[Field, float]:
    """What the tensors in some groups say, of the group that is furthest; nothing without any.

    Raises:
        ValueError: a value that none of them can have.
    """
    found = [
        {field: _value(g, name, group[name]) for field, name in NAMES.items() if name in group}
        for g, group in enumerate(groups)
    ]
    furthest = max(found, key=lambda counters: counters.get(Field.STEP, NOTHING), default={})
    return {} if furthest.get(Field.STEP) == NOTHING else furthest


def _value(g: int, name: str, stored: Any) -> float:
    value = number_or_nan(stored)
    if name == NAMES[Field.LOSS_SCALE]:
        with_sense = value == 0.0 or 2.0**-149 <= value <= torch.finfo(torch.float32).max
        rule = "0 or a positive float32"
    else:
        lowest = LOWEST.get(name, 0.0)
        with_sense = lowest <= value < 2.0**62 and value == math.floor(value)
        rule = "a count, in [0, 2**62)"
    if not with_sense:
        raise ValueError(f"{name} of group {g} must be {rule}, got {stored!r:.80}")
    return value
