"""The JSON text in a parameter group: schedules, the values of their inputs, and options.

What groups have in common is made once: the text of equal schedules, of equal options, and the
whole text of groups that differ in neither, which is one string, so that pickle stores it once.
"""

import json
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrfused.groups.recent import Recent
from lrfused.groups.tables import encoded
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.schedules.serial import to_dict
from lrfused.settings.cells import Cell, Settings
from lrfused.settings.options import Agc, GroupOptions, Options
from lrfused.settings.slots import OPTIONAL, SLOTS, Slot

VERSION = 2
SCHEDULE = "a schedule"
to_json = json.JSONEncoder(separators=(",", ":")).encode


class Table(NamedTuple):
    """A long table, under the hash of its values."""

    values: NDArray[np.float64]  # held, as it is looked up by its id
    name: str
    text: str


class Described(NamedTuple):
    """A schedule's data as JSON, and the long tables that it only names."""

    text: str
    tables: dict[str, str]


class DescribedOptions(NamedTuple):
    """The options of a group under the names of the arguments, and the same as JSON."""

    values: dict[str, Any]
    text: str


class Describer:
    """Writes the texts of an optimizer's groups, one after another."""

    def __init__(self, rule: UpdateRule, options: Options):
        self._rule, self._options = rule, options
        self._written: set[str] = set()  # the tables that are in a text
        self._tables: Recent[int, Table] = Recent()
        self._schedules: Recent[Schedule, Described] = Recent()
        self._group_options: Recent[Any, DescribedOptions] = Recent()
        self._texts: Recent[str, str] = Recent()

    def start(self) -> None:
        """All groups are described from here on: the first that has a table gets its text."""
        self._written = set()
        for cache in (self._tables, self._schedules, self._group_options, self._texts):
            cache.turn()

    def text(self, settings: Settings) -> str:
        """The text of a group."""
        schedules: list[str] = []
        inputs: dict[str, dict[str, float]] = {}
        tables: dict[str, str] = {}
        for slot, cell in zip(SLOTS, settings.cells, strict=True):
            if cell.schedule is None:
                continue
            name, described = slot.name.lower(), self.schedule(cell.schedule)
            schedules.append(f'"{name}":{described.text}')
            tables |= described.tables
            if values := cell.input_values():
                inputs[name] = values
        tables = {name: text for name, text in tables.items() if name not in self._written}
        self._written |= tables.keys()
        # Put together from texts that are JSON already: those of schedules are long.
        text = (
            f'{{"version":{VERSION},"optimizer":{to_json(self._rule.name)},'
            f'"schedules":{{{",".join(schedules)}}},'
            f'"inputs":{to_json(inputs) if inputs else "{}"},'
            f'"options":{self.options(settings).text},'
            f'"tables":{to_json(tables) if tables else "{}"}}}'
        )
        return self._texts.get(text, lambda: text)

    def schedule(self, schedule: Schedule) -> Described:
        """A schedule's data, of equal ones that of the first."""
        return self._schedules.get(schedule, lambda: self._described(schedule))

    def _described(self, schedule: Schedule) -> Described:
        tables: dict[str, str] = {}
        return Described(to_json(to_dict(schedule, partial(self._named, tables))), tables)

    def _named(self, tables: dict[str, str], values: NDArray[np.float64]) -> str:
        """The name of a long table, which is added to ``tables``."""
        table = self._tables.get(id(values), lambda: Table(values, *encoded(values)))
        tables[table.name] = table.text
        return table.name

    def options(self, settings: Settings) -> DescribedOptions:
        """The options of a group and of its optimizer."""
        cells = (settings.cells[slot] for slot in OPTIONAL)
        optional = [SCHEDULE if cell.schedule is not None else cell.value for cell in cells]

        def described() -> DescribedOptions:
            values = described_options(self._rule, settings, self._options)
            return DescribedOptions(values, to_json(values))

        return self._group_options.get((settings.options, *optional), described)


def described_options(rule: UpdateRule, settings: Settings, options: Options) -> dict[str, Any]:
    """The options of a group and of its optimizer, under the names of the arguments."""
    group = settings.options
    described: dict[str, Any] = {
        "weight_decay_mode": group.decay_mode.name.lower(),
        "peak_lr": group.peak_lr,
        **{name: group.of_rule[name] for name in rule.arguments},
        "start_step": group.start_step,
        **described_common_options(options),
    }
    if group.agc != Agc.OFF:
        described["agc_by"] = group.agc.name.lower()
    if group.average_every:
        described["ema_update_every"] = group.average_every
    for slot in OPTIONAL:
        cell = settings.cells[slot]
        value = cell.value if is_on(slot, group, options) else None
        described[slot.key] = SCHEDULE if cell.schedule is not None else value
    return described


def described_common_options(options: Options) -> dict[str, Any]:
    """The options that all groups share, under the names of the arguments."""
    policy = options.loss_scale
    scale: Any = None
    if policy is not None:
        scale = dict(vars(policy)) if policy.dynamic else policy.init
    return {
        "norm_type": "inf" if options.infinity_norm else 2.0,
        "nonfinite": options.nonfinite.name.lower(),
        "accumulation_steps": options.accumulation_steps,
        "loss_scale": scale,
        "advance_schedule_on_skip": options.advance_schedule_on_skip,
        "write_grads": options.write_grads,
        "zero_grads": options.zero_grads,
        "always_measure": options.always_measure,
    }


def is_on(slot: Slot, group: GroupOptions, options: Options) -> bool:
    """True if what an optional hyperparameter is for is switched on, whatever its value."""
    return {
        Slot.MAX_GRAD_NORM: options.clip_norm,
        Slot.CLIP_VALUE: group.value_clip,
        Slot.AGC: group.agc != Agc.OFF,
        Slot.EMA_DECAY: group.average_every > 0,
    }[slot]


def usual_options(rule: UpdateRule) -> dict[str, Any]:
    """The described options of a group that uses only defaults."""
    of_rule = {name: choices[0] for name, choices in rule.arguments.items()}
    options = GroupOptions(decay_mode=rule.decay_modes[0], of_rule=of_rule)
    return described_options(rule, Settings(0, options, [Cell() for _ in Slot]), Options())


COMMON = {*described_common_options(Options()), "max_grad_norm"}  # shared by all groups
