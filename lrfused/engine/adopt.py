"""Reads and checks a checkpoint that was written into groups and state without `load_state_dict`.

ZeroRedundancyOptimizer, for one, never calls the ``load_state_dict`` of its inner optimizer: it
writes the saved values into that optimizer's groups and state.
"""

from typing import NamedTuple

from torch import Tensor

from lrfused.groups.differences import differences
from lrfused.groups.inputs import input_values
from lrfused.groups.known_groups import KnownGroups
from lrfused.groups.shared_counters import counters_in
from lrfused.groups.stored import stored_in
from lrfused.settings.cells import Settings
from lrfused.settings.slots import Slot
from lrfused.state.device_state import Field
from lrfused.state.step_counts import Groups, States, as_count


class Found(NamedTuple):
    """The loaded values, and a description of how the saved settings differ from the present."""

    counters: dict[Field, float]
    largest_count: int
    inputs: list[tuple[Tensor, float]]
    different: str


def found_in(known: KnownGroups, rows: list[Settings], groups: Groups, states: States) -> Found:
    """Read what was loaded, without changing anything.

    Raises:
        ValueError: a loaded value is invalid.
    """
    counters, stored = counters_in(groups), stored_in(groups)
    counts = [
        as_count(states[param]["step"])
        for group in groups
        for param in group["params"]
        if known.rule.counts and states.get(param, {}).get("step") is not None
    ]
    inputs = input_values(rows, stored, [{} for _ in groups])
    nothing: list[set[Slot]] = [set() for _ in groups]
    different = differences(known.rule, rows, known.describer, stored, groups, nothing)
    return Found(counters, max(counts, default=0), inputs, different)
