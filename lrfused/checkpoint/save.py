"""Saving: torch's state_dict, with what stands in the groups brought up to date first."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lrfused.carried import BY_PLACE, NUMBER
from lrfused.counts import States

if TYPE_CHECKING:
    from lrfused.engine import Engine

GroupList = list[dict[str, Any]]


def state_dict(
    engine: "Engine", groups: GroupList, states: States, base: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """torch's dictionary; of what is ours it has copies.

    Raises:
        RuntimeError: a step on a GPU was refused, which the host did not know yet.
    """
    reading = engine.read(groups, states)
    known = engine.known
    known.carried.fill(reading, engine.options.loss_scale is not None)
    known.describe(engine.hyper.rows, groups)
    saved = base()
    if "state" not in saved:  # a hook of the caller's made something else of it
        return saved
    ours = known.carried.tensors
    for group in saved["param_groups"]:
        if NUMBER in group:
            group[NUMBER] = BY_PLACE
        group.update(
            {key: tensor.clone() for key, tensor in ours.items() if group.get(key) is tensor}
        )
    counts = engine.counts(groups, states)
    for index, copies in enumerate(counts.copies(states)):
        if isinstance(saved["state"].get(index), dict):
            saved["state"][index] = {**saved["state"][index], **copies}
    return saved
