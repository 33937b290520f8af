"""Parses and checks what a checkpoint stores of a group besides torch's keys."""

import json
from dataclasses import dataclass, field
from typing import Any

from lrfused.groups.shared_counters import TEXT
from lrfused.groups.tables import Tables
from lrfused.groups.text import VERSION, to_json
from lrfused.settings.slots import Slot


@dataclass
class Stored:
    """A group's parsed text: schedules as JSON, their inputs' values by name, options.

    Schedules are texts, as a `Describer` has them: thousands of groups would else hold hundreds of
    thousands of lists, and most schedules are only compared.
    """

    schedules: dict[Slot, str] = field(default_factory=dict)
    inputs: dict[Slot, dict[str, float]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    own_tables: dict[str, str] = field(default_factory=dict)
    optimizer: str = "adamw"
    tables: Tables = field(default_factory=Tables)  # of all groups


def stored_in(groups: list[dict[str, Any]]) -> list[Stored | None]:
    """The parsed text of each group; None for a group that torch wrote.

    Raises:
        ValueError: a text was not written by ``state_dict``, or is damaged.
    """
    texts = [_text_in(f"{TEXT!r} of group {g}", group) for g, group in enumerate(groups)]
    parsed: dict[str, Stored | None] = {"": None}  # groups with equal texts share what is parsed
    tables = Tables()
    for g, text in enumerate(texts):
        if text not in parsed:
            parsed[text] = stored = _parse(f"{TEXT!r} of group {g}", text)
            tables.add(stored.own_tables)
            stored.tables = tables
    return [parsed[text] for text in texts]


def _text_in(where: str, group: dict[str, Any]) -> str:
    text = group.get(TEXT)
    if isinstance(text, dict):
        raise ValueError(f"{where} is of an older development version, which this one cannot read")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{where} must be a string, got {text!r:.80}")
    return text or ""


def _parse(where: str, text: str) -> Stored:
    try:
        data = json.loads(text)
        version = data["version"]
        if version != VERSION:
            raise ValueError(f"must have version {VERSION}, got {version!r:.80}")
        return Stored(
            {_slot(name): to_json(dict(schedule)) for name, schedule in data["schedules"].items()},
            {_slot(name): _values(values) for name, values in data["inputs"].items()},
            dict(data["options"]),
            {str(name): str(table) for name, table in data["tables"].items()},
            str(data.get("optimizer", "adamw")),
        )
    except (
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(f"{where} is damaged: {error!r:.200}") from error


def _slot(name: str) -> Slot:
    return Slot[name.upper()]


def _values(values: dict[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}


def schedule_data(stored: Stored, slot: Slot) -> dict[str, Any]:
    """The stored schedule of a slot, in the form that ``Schedule.from_dict`` reads.

    Raises:
        ValueError: it is damaged, or a table is missing.
    """
    try:
        return stored.tables.put_in(json.loads(stored.schedules[slot]))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"is damaged: {error!r}") from error
