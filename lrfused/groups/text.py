"""The JSON text in a parameter group: schedules, the values of their inputs, and options.

A schedule's long table is stored once among an optimizer's groups, under its hash: a sampled
schedule used in 100 groups is one table.
"""

import base64
import hashlib
import json
import zlib
from typing import Any

import numpy as np
from torch import Tensor

from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.settings.cells import Cell, Settings
from lrfused.settings.options import Agc, GroupOptions, Options
from lrfused.settings.slots import OPTIONAL, Slot

VERSION = 2
SCHEDULE = "a schedule"


Plain = tuple[Schedule, dict[str, Any], dict[str, str]]  # the schedule, its plain data, its tables


class Describer:
    """Writes the texts of an optimizer's groups, one after another."""

    def __init__(self, rule: UpdateRule, before: "Describer | None" = None):
        self._rule = rule
        self._tables: set[str] = set()  # already in a text
        # By the schedule's id, since groups often share one; ``before`` has those of the last time.
        self._plain: dict[int, Plain] = {}
        self._before = {} if before is None else before._plain

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_plain": {}, "_before": {}}  # a copy's objects have other ids

    def text(self, settings: Settings, options: Options) -> str:
        """The text of a group."""
        tables: dict[str, str] = {}
        schedules, inputs = {}, {}
        for slot, cell in zip(Slot, settings.cells, strict=True):
            if cell.schedule is not None:
                schedules[slot.name.lower()] = self.schedule(cell.schedule, tables)
                if values := cell.input_values():
                    inputs[slot.name.lower()] = values
        tables = {name: data for name, data in tables.items() if name not in self._tables}
        self._tables |= tables.keys()
        described = {
            "version": VERSION,
            "optimizer": self._rule.name,
            "schedules": schedules,
            "inputs": inputs,
            "options": described_options(self._rule, settings, options),
            "tables": tables,
        }
        return json.dumps(described, separators=(",", ":"))

    def schedule(self, schedule: Schedule, tables: dict[str, str] | None = None) -> dict[str, Any]:
        """``to_dict`` with long tables moved to ``tables``, under their hash."""
        known = self._plain.get(id(schedule)) or self._before.get(id(schedule))
        if known is None:
            known = (schedule, *_plain(schedule))
        self._plain[id(schedule)] = known
        _, data, found = known
        if tables is not None:
            tables |= found
        return data


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


def _plain(schedule: Schedule) -> tuple[dict[str, Any], dict[str, str]]:
    data, tables = schedule.to_dict(), dict[str, str]()
    for node in data["nodes"]:
        if isinstance(node[1], Tensor):
            values = node[1].numpy().astype("<f8").tobytes()
            name = node[1] = hashlib.sha256(values).hexdigest()
            tables[name] = base64.b64encode(zlib.compress(values)).decode("ascii")
    return data, tables


def with_tables(data: dict[str, Any], tables: dict[str, str]) -> dict[str, Any]:
    """A schedule's data from a text with its tables put back, for ``Schedule.from_dict``.

    Raises:
        ValueError: a table is damaged, or was in the text of a group that is missing.
    """
    return {**data, "nodes": [_with_table(node, tables) for node in data["nodes"]]}


def _with_table(node: list[Any], tables: dict[str, str]) -> list[Any]:
    kind, payload, places = node
    if kind != "table" or not isinstance(payload, str):
        return node
    if payload not in tables:
        raise ValueError(f"table {payload:.12}... stands in no group of this checkpoint")
    try:
        values = zlib.decompress(base64.b64decode(tables[payload]))
    except (zlib.error, ValueError) as error:
        raise ValueError(f"table {payload:.12}... is damaged: {error}") from error
    if hashlib.sha256(values).hexdigest() != payload:
        raise ValueError(f"table {payload:.12}... holds other values than it should")
    return [kind, np.frombuffer(values, dtype="<f8").tolist(), places]
