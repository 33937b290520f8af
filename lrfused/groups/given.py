"""A group that the caller gives, perhaps a copy of another optimizer's group: its arguments."""

from typing import Any

from torch import Tensor

from lrfused.groups import arguments
from lrfused.groups.shared_counters import KEYS
from lrfused.groups.stored import Stored, schedule_data, stored_in
from lrfused.groups.tables import Tables
from lrfused.groups.text import SCHEDULE, usual_options
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.settings.cells import Settings, read_group, same, written
from lrfused.settings.slots import OPTIONAL, Slot


def without_ours(group: dict[str, Any]) -> dict[str, Any]:
    """A group without this package's keys."""
    return {key: value for key, value in group.items() if key not in KEYS}


def parameters_in(group: dict[str, Any]) -> Any:
    """The parameters of a group as a list, so that they can be iterated more than once.

    Raises:
        KeyError: there are none, as in torch.
    """
    params = group["params"]
    if isinstance(params, Tensor):
        return [params]
    return params if isinstance(params, set) else list(params)  # torch refuses a set


def from_group(
    rule: UpdateRule,
    group: dict[str, Any],
    settings: Settings | None,
    tables: Tables,
) -> dict[str, Any]:
    """A group's arguments; for a copied group also the options and schedules of the original.

    ``settings`` are the original's, if it belongs to this optimizer. ``tables`` are those found in
    texts so far; this group's are added.

    Raises:
        ValueError: a schedule of another optimizer reads a tensor, which a copy does not contain.
    """
    stored = stored_in([group])[0]
    if stored is None:
        return group
    tables.add(stored.own_tables)
    stored.tables = tables
    own, usual = arguments.group_arguments(rule), usual_options(rule)
    options = {k: v for k, v in stored.options.items() if k in own}
    found = {k: v for k, v in options.items() if v not in (SCHEDULE, usual.get(k))} | group
    of_groups = (slot for slot in OPTIONAL if slot.key in own)
    for slot in (*of_groups, *rule.hyperparameters):
        if _is_given(group, slot, settings):
            continue
        schedule = _schedule(stored, slot) if settings is None else settings.cells[slot].schedule
        if schedule is None:
            continue
        if slot == Slot.LR:  # the schedule already contains the layer's factor
            found.pop("lr_scale", None)
        key, value = written(found, slot, schedule)
        found[key] = value
    return found


def _is_given(group: dict[str, Any], slot: Slot, settings: Settings | None) -> bool:
    """True if the caller set the value; False for a copied mirror or a default."""
    if slot.is_optional:
        return slot.key in group
    if slot.key not in group:
        return True
    value = read_group(group, slot)
    # For another optimizer's group it is unknown which number was mirrored.
    is_known = settings is not None and not same(value, settings.cells[slot].mirror)
    return isinstance(value, Schedule) or is_known


def _schedule(stored: Stored, slot: Slot) -> Schedule | None:
    if slot in stored.inputs:
        raise ValueError(
            f"{slot.argument}: its schedule reads {', '.join(stored.inputs[slot])}, which a "
            "copy of the group does not bring along; write the schedule into the group"
        )
    if slot not in stored.schedules:
        return None
    return Schedule.from_dict(schedule_data(stored, slot))
