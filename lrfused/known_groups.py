"""The groups of an optimizer: whose settings does a dictionary in ``param_groups`` have?

The list is the user's: dictionaries may be removed, put in another order, copied, or stand there
for the first time. A number in each, which goes along with its copies, says which settings it has.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor

from lrfused import arguments
from lrfused.carried import KEYS, NUMBER, TEXT, Carried
from lrfused.cells import (
    IN_GROUPS,
    Cell,
    Settings,
    argument_name,
    by_layer,
    read_group,
    written,
)
from lrfused.checkpoint.describe import SCHEDULE, Describer
from lrfused.checkpoint.stored import schedule_data, stored_in
from lrfused.distributed import check_is_whole
from lrfused.options import GroupOptions, Options, Slot
from lrfused.schedules import Schedule

GroupList = list[dict[str, Any]]
TORCH_KEYS = ("params", "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")


class KnownGroups:
    """The settings of every group that there has been, and what new ones start from."""

    def __init__(self, defaults: dict[str, Any], max_grad_norm: Any, options: Options):
        self.defaults, self._max_grad_norm, self._options = defaults, max_grad_norm, options
        self._known: dict[int, Settings] = {}
        self._next = 0
        self._describer = Describer()
        self.carried = Carried()

    def checked(self, own: dict[str, Any]) -> arguments.Group:
        """A group's arguments, with the defaults for those that are missing.

        Raises:
            TypeError, ValueError: an argument has the wrong type or is out of its range.
        """
        whole = {**self.defaults, **own}
        if isinstance(whole["lr"], Schedule):
            whole["lr"] = by_layer(whole["lr"], own)
        return arguments.group(whole, self._max_grad_norm)

    def check_params(self, group: arguments.Group, params: Iterable[Any]) -> None:
        """Refuse parameters of which this process holds a part only, where all must be known.

        Raises:
            ValueError: there is one.
        """
        if self._options.measures([group.options]):
            for named in params:
                param = named[-1] if isinstance(named, tuple) and named else named
                if isinstance(param, Tensor):  # torch refuses the rest
                    check_is_whole(param, self._options.sharded)

    def add(self, group: arguments.Group) -> dict[str, Any]:
        """Remember a new group; returns what its dictionary carries of it."""
        cells = [Cell.of(group.sources.get(slot, float("inf")), slot) for slot in Slot]
        return self._remember(group.options, cells)

    def _remember(self, options: GroupOptions, cells: list[Cell]) -> dict[str, Any]:
        settings = Settings(self._next, options, cells)
        self._known[settings.number] = settings
        self._next += 1
        text = self._describer.text(settings, self._options)
        return {TEXT: text, NUMBER: settings.number, **self.carried.tensors}

    def rows(self, groups: GroupList, before: list[Settings]) -> list[Settings]:
        """The settings of the groups as they stand; ``before`` those of the last time, in order.

        Raises:
            TypeError, ValueError: something stands there that is no group; nothing was changed.
        """
        new = {
            g: self._new(g, group)
            for g, group in enumerate(groups)
            if not isinstance(group, dict) or self._is_new(group, g < len(before))
        }
        rows: list[Settings] = []
        taken: set[int] = set()
        for g, group in enumerate(groups):
            if g in new:
                group.update(self.add(new[g]))
                for name in arguments.GROUP_ARGUMENTS:
                    group.pop(name, None)
            # A number of another optimizer, as ZeroRedundancyOptimizer loads it: by its place.
            settings = self._known.get(group[NUMBER]) or before[g]
            if settings.number in taken:  # a copy beside the original
                cells = [replace(cell) for cell in settings.cells]
                group.update(self._remember(settings.options, cells))
                settings = self._known[group[NUMBER]]
            group[NUMBER] = settings.number
            taken.add(settings.number)
            rows.append(settings)
        return rows

    def settings_of(self, group: dict[str, Any]) -> Settings | None:
        """Of a dictionary, wherever it stands; None if it is none of ours (yet)."""
        return self._known.get(group.get(NUMBER, -1))

    def _is_new(self, group: dict[str, Any], has_place: bool) -> bool:
        return NUMBER not in group or (group[NUMBER] not in self._known and not has_place)

    def _new(self, g: int, group: Any) -> arguments.Group:
        """A group that was put into the list by hand."""
        if not isinstance(group, dict):
            raise TypeError(f"param_groups[{g}]: must be a dict, got {type(group).__name__}")
        if missing := [key for key in TORCH_KEYS if key not in group]:
            raise ValueError(
                f"param_groups[{g}]: has no {missing[0]!r}; add_param_group fills in the rest"
            )
        try:
            made = self.checked({k: group[k] for k in arguments.GROUP_KEYS if k in group})
            self.check_params(made, group["params"])
        except (TypeError, ValueError) as error:
            raise type(error)(f"param_groups[{g}]: {error}") from error
        return made

    def describe(self, rows: list[Settings], groups: GroupList) -> None:
        """Bring the texts in the groups up to date."""
        self._describer = Describer()
        for settings, group in zip(rows, groups, strict=True):
            group[TEXT] = self._describer.text(settings, self._options)


def without_ours(group: dict[str, Any]) -> dict[str, Any]:
    """A group without what an optimizer of this package put there."""
    return {key: value for key, value in group.items() if key not in KEYS}


def parameters_in(group: dict[str, Any]) -> Any:
    """The parameters of a group as a list, so that they can be looked at more than once.

    Raises:
        KeyError: there are none, as torch has it.
    """
    params = group["params"]
    if isinstance(params, Tensor):
        return [params]
    return params if isinstance(params, set) else list(params)  # torch refuses a set


def from_group(group: dict[str, Any]) -> dict[str, Any]:
    """A group's arguments; of a copy of another optimizer's group also what that one has of it.

    Raises:
        ValueError: a schedule of the other optimizer reads a tensor, which no copy brings along.
    """
    stored = stored_in([group])[0]
    if stored is None:
        return group
    found = {k: v for k, v in stored.options.items() if k in arguments.GROUP_ARGUMENTS}
    found = {k: v for k, v in found.items() if v != SCHEDULE} | group
    for slot in stored.schedules:
        name = argument_name(slot)
        if slot not in IN_GROUPS or isinstance(read_group(group, slot), Schedule):
            continue
        if slot in stored.inputs:
            raise ValueError(
                f"{name}: its schedule reads {', '.join(stored.inputs[slot])}, which a copy of the "
                "group does not bring along; write the schedule into the group"
            )
        schedule = Schedule.from_dict(schedule_data(stored, slot))
        key, value = written(found, slot, schedule)
        found[key] = value
    return found
