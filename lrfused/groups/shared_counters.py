"""The keys that parameter groups have besides torch's, so that they survive every transport.

torch moves an optimizer's state in many ways: sharded, flattened by parameter, gathered, broadcast,
renamed. 0-dim tensors, numbers and strings in the groups, present in memory too, survive all of
them; nested dictionaries, vectors and keys that are only sometimes present do not.
"""

import math
from typing import Any

import torch

from lrfused.memory.normal_tensors import normal_tensors
from lrfused.schedules.expression import MAX_STEP
from lrfused.settings.cells import number_or_nan
from lrfused.state.device_state import PERSISTENT, Field, Reading

TEXT = "lrfused"  # schedules and options, as JSON: text.py
NUMBER = "lrfused_group"  # the number of the group's Settings
BY_PLACE = -1  # in a checkpoint: the settings of the group at the same index in the list
FIELDS = (*PERSISTENT, Field.LOSS_SCALE)
NAMES = {field: f"lrfused_{field.name.lower()}" for field in FIELDS}
STEP = NAMES[Field.STEP]
NOTHING = -1.0  # as the step: nothing was saved yet
LOWEST = {STEP: NOTHING, NAMES[Field.HYSTERESIS_TRACKER]: -(2.0**62)}
KEYS = (TEXT, NUMBER, *NAMES.values())


class SharedCounters:
    """An optimizer's counters and loss scale as tensors, shared by all groups.

    They are updated by ``state_dict()``; before its first call the step is -1. The loss scale is 0
    without loss scaling.
    """

    @normal_tensors()
    def __init__(self) -> None:
        zero = torch.zeros((), dtype=torch.float64, device="cpu")
        self.tensors = {name: zero.clone() for name in NAMES.values()}
        self.tensors[STEP].fill_(NOTHING)
        self._taken: torch.Tensor | None = None  # STEP of the adopted checkpoint, until a step

    def fill(self, reading: Reading, has_scale: bool) -> None:
        """Write the present values in place, so that all holders of the tensors see them."""
        for field, name in NAMES.items():
            shown = field != Field.LOSS_SCALE or has_scale
            self.tensors[name].fill_(reading[field] if shown else 0.0)

    def put_into(self, groups: list[dict[str, Any]]) -> None:
        """Put these tensors into every group."""
        for group in groups:
            if group.get(STEP) is not self.tensors[STEP]:
                group.update(self.tensors)

    def were_replaced(self, groups: list[dict[str, Any]]) -> bool:
        """True if a checkpoint was loaded without `load_state_dict`: no group has our tensors.

        ZeroRedundancyOptimizer loads so, and repeats it until the next step is done. If only some
        groups have other tensors, they are copies of groups and do not count.
        """
        own = self.tensors[STEP]
        if groups and self._taken is not None and groups[0].get(STEP) is self._taken:
            return False
        return bool(groups) and all(
            isinstance(group, dict) and group.get(STEP, own) is not own for group in groups
        )

    def remember_taken(self, step: torch.Tensor | None) -> None:
        """Ignore the checkpoint with this tensor until a step: it was adopted already."""
        self._taken = step

    def forget_taken(self) -> None:
        """After a step: whatever is found from now on was loaded after it."""
        self._taken = None


def counters_in(groups: list[dict[str, Any]]) -> dict[Field, float]:
    """The counters found in the groups, of the group with the largest step; {} if there are none.

    Raises:
        ValueError: a counter has an impossible value.
    """
    found: dict[Any, dict[Field, float]] = {}  # groups usually have the same tensors
    for g, group in enumerate(groups):
        stored = {field: group[name] for field, name in NAMES.items() if name in group}
        which = tuple((field, id(value)) for field, value in stored.items())
        if which not in found:
            found[which] = {f: _value(g, NAMES[f], value) for f, value in stored.items()}
    furthest = max(
        found.values(), key=lambda counters: counters.get(Field.STEP, NOTHING), default={}
    )
    return {} if furthest.get(Field.STEP) == NOTHING else furthest


def _value(g: int, name: str, stored: Any) -> float:
    value = number_or_nan(stored)
    if name == NAMES[Field.LOSS_SCALE]:
        with_sense = value == 0.0 or 2.0**-149 <= value <= torch.finfo(torch.float32).max
        rule = "0 or a positive float32"
    else:
        lowest = LOWEST.get(name, 0.0)
        with_sense = lowest <= value < MAX_STEP and value == math.floor(value)
        rule = "a count, in [0, 2**53)"
    if not with_sense:
        raise ValueError(f"{name} of group {g} must be {rule}, got {stored!r:.80}")
    return value
