"""Maps the dictionaries in ``param_groups`` to their settings.

The user owns the list: dictionaries may be removed, reordered, copied or added by hand. A number in
each, which its copies keep, identifies its settings; it is drawn at random, so that it differs from
those of any other optimizer's groups.
"""

import numbers
import secrets
from collections.abc import Iterable
from dataclasses import replace
from operator import is_
from typing import Any

from torch import Tensor

from lrfused.groups import arguments
from lrfused.groups.given import from_group
from lrfused.groups.matrix import torchs_keys
from lrfused.groups.shared_counters import BY_PLACE, NUMBER, TEXT, SharedCounters
from lrfused.groups.tables import Tables
from lrfused.groups.text import Describer
from lrfused.memory.dtensor import check_is_whole
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.settings.cells import (
    Cell,
    Settings,
    Value,
    by_layer,
    read_group,
)
from lrfused.settings.options import GroupOptions, Options
from lrfused.settings.slots import SLOTS

GroupList = list[dict[str, Any]]

# Cells of what a group leaves out, which nobody writes: one of each for all groups.
UNUSED = [Cell.of(slot.neutral, slot) for slot in SLOTS]


class KnownGroups:
    """The settings of all groups, past and present, and the defaults of new ones."""

    def __init__(
        self, rule: UpdateRule, defaults: dict[str, Any], max_grad_norm: Any, options: Options
    ):
        self.rule = rule
        self.defaults, self._max_grad_norm, self._options = defaults, max_grad_norm, options
        self._known: dict[int, Settings] = {}
        self._seen: GroupList = []  # the dictionaries at the last call of `rows`, and added ones
        self._added: list[Settings] = []  # of groups that were added since then
        # Equal schedules are one object, so that they are compiled once; and equal options.
        self._schedules: dict[Schedule, Schedule] = {}
        self._group_options: dict[GroupOptions, GroupOptions] = {}
        self.describer = Describer(rule, options)
        self.tables = Tables()  # of groups that came from another optimizer
        self.counters = SharedCounters()

    def checked(self, own: dict[str, Any]) -> arguments.Group:
        """Check a group's arguments, with defaults for missing ones.

        Raises:
            TypeError, ValueError: an argument has the wrong type or is out of its range.
        """
        whole = {**self.defaults, **own}
        if isinstance(whole["lr"], Schedule):
            whole["lr"] = by_layer(whole["lr"], own)
        return arguments.group(self.rule, whole, self._max_grad_norm)

    def check_params(self, group: arguments.Group, params: Iterable[Any]) -> None:
        """Refuse sharded parameters if the group's options need all gradients.

        Raises:
            ValueError: this process holds only a part of a parameter.
        """
        if self._options.measures([group.options]):
            for named in params:
                param = named[-1] if isinstance(named, tuple) and named else named
                if isinstance(param, Tensor):  # torch refuses the rest
                    check_is_whole(param, self._options.sharded)

    def add(self, group: dict[str, Any], made: arguments.Group) -> Settings:
        """Register a new group, and put this package's keys into its dictionary."""
        given = made.sources
        cells = [
            Cell.of(self._one(given[slot]), slot) if slot in given else UNUSED[slot]
            for slot in SLOTS
        ]
        options = self._group_options.setdefault(made.options, made.options)
        settings = self._remember(group, options, cells)
        self._seen.append(group)
        self._added.append(settings)
        return settings

    def _one(self, source: Value) -> Value:
        """The source itself, or of equal schedules the first."""
        return (
            self._schedules.setdefault(source, source) if isinstance(source, Schedule) else source
        )

    def _remember(
        self, group: dict[str, Any], options: GroupOptions, cells: list[Cell]
    ) -> Settings:
        settings = Settings(secrets.randbits(52), options, cells)
        self._known[settings.number] = settings
        group[TEXT] = self.describer.text(settings)
        group[NUMBER] = settings.number
        group.update(self.counters.tensors)
        return settings

    def has_grown_only(self, groups: GroupList) -> bool:
        """True if nothing shows that the list was changed since `rows`, except by `add`.

        Only length and end are looked at, as this happens for every group that is added; what that
        overlooks is seen by `rows`, before the groups are used.
        """
        return len(groups) == len(self._seen) and all(map(is_, groups[-1:], self._seen[-1:]))

    def are_as_before(self, groups: GroupList, before: list[Settings]) -> bool:
        """True if these are the dictionaries of the last call of `rows` with the same settings."""
        return len(groups) == len(before) == len(self._seen) and all(
            group is seen and group.get(NUMBER) == settings.number
            for group, seen, settings in zip(groups, self._seen, before, strict=True)
        )

    def rows(self, groups: GroupList, before: list[Settings]) -> list[Settings]:
        """The settings of the present groups, in order; ``before`` are those of the last call.

        Raises:
            TypeError, ValueError: an item is not a valid group; nothing was changed.
        """
        before = [*before, *self._added]
        places = {id(seen): g for g, seen in enumerate(self._seen)}
        found = [self._found(g, group, places, before) for g, group in enumerate(groups)]
        new = {g: self._new(g, groups[g]) for g, settings in enumerate(found) if settings is None}
        rows: list[Settings] = []
        taken: set[int] = set()
        for g, (group, settings) in enumerate(zip(groups, found, strict=True)):
            if settings is None:
                settings = self._put_in(group, new[g])
            elif settings.number in taken:  # a copy beside the original
                cells = [replace(cell) for cell in settings.cells]
                settings = self._remember(group, settings.options, cells)
            elif id(group) not in places and group.get(NUMBER) == settings.number:
                group.update(self.counters.tensors)  # a copy, whose tensors may be copies, too
            group[NUMBER] = settings.number
            if TEXT not in group:
                group[TEXT] = self.describer.text(settings)
            taken.add(settings.number)
            rows.append(settings)
        self._seen, self._added = list(groups), []
        return rows

    def settings_of(self, group: dict[str, Any]) -> Settings | None:
        """The settings of a dictionary, in the list or not; None if it is not registered."""
        return self._known.get(group.get(NUMBER, BY_PLACE))

    def _found(
        self, g: int, group: Any, places: dict[int, int], before: list[Settings]
    ) -> Settings | None:
        """The settings of the ``g``-th item of the list; None for a new group."""
        if not isinstance(group, dict):
            raise TypeError(f"param_groups[{g}]: must be a dict, got {type(group).__name__}")
        if id(group) in places:  # its number may be another: ZeroRedundancyOptimizer loads one
            return self.settings_of(group) or before[places[id(group)]]
        needed = ("params", *torchs_keys(self.rule))
        if missing := [key for key in needed if key not in group]:
            raise ValueError(
                f"param_groups[{g}]: has no {missing[0]!r}; add_param_group fills in the rest"
            )
        if group.get(NUMBER) == BY_PLACE and g < len(before):
            return before[g]
        if NUMBER not in group and g < len(before) and self._has_the_parameters_of(g, group):
            return before[g]  # rebuilt by a caller that does not know our keys
        return self.settings_of(group)

    def _has_the_parameters_of(self, g: int, group: dict[str, Any]) -> bool:
        """True if the group at index ``g`` of the last call has the same parameters."""
        now, then = list(group["params"]), list(self._seen[g]["params"])
        return len(now) == len(then) > 0 and all(p is q for p, q in zip(now, then, strict=True))

    def _new(self, g: int, group: dict[str, Any]) -> arguments.Group:
        """Check a group that was put into the list by hand."""
        try:
            found = from_group(self.rule, group, None, self.tables)
            made = self.checked(
                {k: found[k] for k in arguments.group_keys(self.rule) if k in found}
            )
            self.check_params(made, group["params"])
        except (TypeError, ValueError) as error:
            raise type(error)(f"param_groups[{g}]: {error}") from error
        return made

    def _put_in(self, group: dict[str, Any], made: arguments.Group) -> Settings:
        """Register such a group; its numbers are taken as mirrors from another optimizer."""
        settings = self.add(group, made)
        for name in arguments.group_arguments(self.rule):
            group.pop(name, None)
        for slot in self.rule.hyperparameters:
            host = read_group(group, slot)
            if isinstance(host, numbers.Real):
                settings.cells[slot].mirror = float(host)
        return settings

    def describe(self, rows: list[Settings], groups: GroupList) -> None:
        """Update the JSON texts in the groups."""
        self.describer.start()
        for settings, group in zip(rows, groups, strict=True):
            group[TEXT] = self.describer.text(settings)
