"""Describes how a checkpoint's settings differ from this optimizer's, and which are kept."""

from collections.abc import Iterator
from typing import Any

from lrfused.groups.stored import Stored
from lrfused.groups.text import COMMON, SCHEDULE, Describer
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.settings.cells import Settings, read_group
from lrfused.settings.loss_scale import LossScale
from lrfused.settings.slots import Slot, optional_slot

SHOWN = 12
Found = Iterator[tuple[str, str]]  # a setting, and its value in the checkpoint


def differences(
    rule: UpdateRule,
    rows: list[Settings],
    describer: Describer,
    stored: list[Stored | None],
    groups: list[dict[str, Any]],
    taken: list[set[Slot]],
) -> str:
    """A sentence for a warning; empty if nothing differs.

    ``describer`` is the optimizer's, ``groups`` are the checkpoint's. Slots in ``taken`` get the
    stored schedule and do not differ.
    """
    comparison = _Comparison(rule, describer)
    found: list[str] = []
    for g, (settings, one, group) in enumerate(zip(rows, stored, groups, strict=True)):
        if one is None:
            continue
        if not comparison.is_common_done:
            found += [
                f"{name} was {how}" for name, how in comparison.common(settings, one, taken[g])
            ]
        own = [*comparison.schedules(settings, one, group, taken[g])]
        own += comparison.options_of(settings, one, taken[g], common=False)
        found += [f"{name} of group {g} was {how}" for name, how in own]
    if not found:
        return ""
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "the checkpoint was written with other settings: " + "; ".join(found[:SHOWN] + more)


class _Comparison:
    """Compares an optimizer with what a checkpoint stores of its groups."""

    def __init__(self, rule: UpdateRule, describer: Describer):
        self._rule, self._describer = rule, describer
        self.is_common_done = False

    def common(self, settings: Settings, stored: Stored, taken: set[Slot]) -> Found:
        """Options that all groups share, reported once."""
        self.is_common_done = True
        return self.options_of(settings, stored, taken, common=True)

    def schedules(
        self, settings: Settings, stored: Stored, group: dict[str, Any], taken: set[Slot]
    ) -> Found:
        """Hyperparameters with a different schedule."""
        for slot in self._rule.hyperparameters:
            schedule = settings.cells[slot].schedule
            if slot in taken or self._is_stored(schedule, stored, slot):
                continue
            name, value = slot.argument, read_group(group, slot)
            if schedule is None:
                yield name, f"a schedule (its value then, {value}, is taken as a number)"
            elif slot not in stored.schedules:
                yield name, f"the number {value} (this optimizer's schedule is kept)"
            else:
                yield name, "another schedule (this optimizer's is kept)"

    def options_of(
        self, settings: Settings, stored: Stored, taken: set[Slot], *, common: bool
    ) -> Found:
        """Options and optional hyperparameters that differ."""
        described = self._describer.options(settings).values
        if described == stored.options and SCHEDULE not in described.values():
            return
        for name, mine in described.items():
            slot = optional_slot(name)
            if (name in COMMON) != common or name not in stored.options or slot in taken:
                continue
            then = stored.options[name]
            if then == mine == SCHEDULE and slot is not None:
                if not self._is_stored(settings.cells[slot].schedule, stored, slot):
                    yield name, "another schedule (this optimizer's is kept)"
            elif then != mine:
                kept = f"{_shown(name, mine)} is kept"
                if name == "loss_scale" and isinstance(mine, dict) and then is not None:
                    kept += ", from the stored scale on"
                yield name, f"{_shown(name, then)} ({kept})"

    def _is_stored(self, schedule: Schedule | None, stored: Stored, slot: Slot) -> bool:
        mine = None if schedule is None else self._describer.schedule(schedule).text
        return mine == stored.schedules.get(slot)


def _shown(name: str, value: Any) -> str:
    """The value as a user would write it."""
    if name == "loss_scale" and isinstance(value, dict):
        usual = vars(LossScale())
        other = [f"{k}={v}" for k, v in value.items() if k in usual and usual[k] != v]
        return f"LossScale({', '.join(other)})"
    return value if value == SCHEDULE else repr(value)
