"""What a checkpoint was written with and this optimizer does otherwise,, and what counts."""

import json
from collections.abc import Iterator
from typing import Any

from lrfused.cells import IN_GROUPS, LIMITS, Settings, argument_name, read_group
from lrfused.checkpoint.describe import SCHEDULE, Describer, described_options, optimizer_options
from lrfused.checkpoint.stored import Stored
from lrfused.loss_scale import LossScale
from lrfused.options import Options, Slot

SHOWN = 12


def differences(
    rows: list[Settings],
    options: Options,
    stored: list[Stored | None],
    groups: list[dict[str, Any]],
    taken: list[set[Slot]],
) -> str:
    """A sentence; empty where nothing differs.

    ``groups`` are the checkpoint's; schedules at the places in ``taken`` are taken over.
    """
    found = list(_of_the_optimizer(rows, options, stored, taken))
    describer = Describer()
    for g, (settings, one, group) in enumerate(zip(rows, stored, groups, strict=True)):
        if one is not None:
            several = [*_schedules(settings, one, group, taken[g], describer)]
            several += _options(_own_names(settings, options), settings, options, one, taken[g])
            found += [f"{name} of group {g} was {how}" for name, how in several]
    if not found:
        return ""
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "the checkpoint was written with other settings: " + "; ".join(found[:SHOWN] + more)


def _of_the_optimizer(
    rows: list[Settings], options: Options, stored: list[Stored | None], taken: list[set[Slot]]
) -> Iterator[str]:
    pairs = zip(rows, stored, taken, strict=True)
    first = next(((row, one, t) for row, one, t in pairs if one is not None), None)
    if first is None:
        return
    settings, one, at = first
    names = [*optimizer_options(options), "max_grad_norm"]
    for name, how in _options(names, settings, options, one, at):
        yield f"{name} was {how}"


def _own_names(settings: Settings, options: Options) -> list[str]:
    common = {*optimizer_options(options), "max_grad_norm"}
    return [name for name in described_options(settings, options) if name not in common]


def _schedules(
    settings: Settings,
    stored: Stored,
    group: dict[str, Any],
    taken: set[Slot],
    describer: Describer,
) -> Iterator[tuple[str, str]]:
    for slot in IN_GROUPS:
        schedule, theirs = settings.cells[slot].schedule, stored.schedules.get(slot)
        mine = None if schedule is None else describer.schedule(schedule)
        if slot in taken or json.dumps(theirs) == json.dumps(mine):
            continue
        value = read_group(group, slot)
        if mine is None:
            yield argument_name(slot), f"a schedule (its value then, {value}, is taken as a number)"
        elif theirs is None:
            yield argument_name(slot), f"the number {value} (this optimizer's schedule is kept)"
        else:
            yield argument_name(slot), "another schedule (this optimizer's is kept)"


def _options(
    names: list[str], settings: Settings, options: Options, stored: Stored, taken: set[Slot]
) -> Iterator[tuple[str, str]]:
    now = described_options(settings, options)
    for name in names:
        if name not in stored.options:
            continue
        then, mine = stored.options[name], now[name]
        limit = next((slot for slot in LIMITS if slot.name.lower() == name), None)
        if limit is not None and limit in taken:
            continue
        if then == mine == SCHEDULE and limit is not None:
            schedule = settings.cells[limit].schedule
            assert schedule is not None
            mine_dumped = json.dumps(Describer().schedule(schedule))
            if json.dumps(stored.schedules.get(limit)) != mine_dumped:
                yield name, "another schedule (this optimizer's is kept)"
        elif then != mine:
            yield name, f"{_shown(name, then)} ({_shown(name, mine)} is kept)"


def _shown(name: str, value: Any) -> str:
    """As a user writes it."""
    if name == "loss_scale" and isinstance(value, dict):
        usual = vars(LossScale())
        other = [f"{k}={v}" for k, v in value.items() if k in usual and usual[k] != v]
        return f"LossScale({', '.join(other)})"
    return value if value == SCHEDULE else repr(value)
