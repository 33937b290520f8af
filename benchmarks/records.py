"""Result files: written after every case, so that a run that is cut off keeps what it had."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import machine
from device import Device
from result_files import SCHEMA, head
from runner import FAILURES, OK, Measurement, timed
from stream import Rates

Record = dict[str, Any]
Key = tuple[str, str, str]  # workload, dtype, form


def new(device: Device, settings: dict[str, Any]) -> Record:
    return {
        **head(),
        "sittings": 1,
        "device": device.name,
        "machine": {**machine.describe(), **device.describe()},
        "load": machine.load(),
        "versions": {**machine.versions(), **device.versions()},
        "settings": settings,
        "stream": {},
        "measurements": [],
    }


def add(record: Record, measurements: list[Measurement], rates: Rates) -> None:
    """What one case has found, or has found again in a later sitting."""
    known = {place_of(found): i for i, found in enumerate(record["measurements"])}
    for found in measurements:
        place = known.get(place_of(found))
        if place is None:
            record["measurements"].append(found)
        else:
            record["measurements"][place] = _joined(record["measurements"][place], found)
    for kernel, values in rates.items():
        record["stream"].setdefault(kernel, []).extend(values)


def place_of(found: Measurement) -> tuple[str, ...]:
    """What was measured of whom."""
    return (found["workload"], found["dtype"], found["form"], found["provider"])


def _joined(earlier: Measurement, later: Measurement) -> Measurement:
    """Two sittings as one; a failure in either stays."""
    if later["status"] != OK:
        return later
    turns = earlier["seconds"]["rounds"] + later["seconds"]["rounds"]
    return timed(earlier, turns, earlier["stream"] + later["stream"])


def read(path: Path) -> Record:
    """
    Raises:
        ValueError: the file is not a result file of this version of the harness.
    """
    try:
        record: Record = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: must be a JSON file, {error}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"{path}: must be a result file with schema {SCHEMA}")
    return record


def by_case(record: Record) -> dict[Key, dict[str, Measurement]]:
    """Measurements by case and provider, in the order of the file."""
    cases: dict[Key, dict[str, Measurement]] = {}
    for found in record["measurements"]:
        key = (found["workload"], found["dtype"], found["form"])
        cases.setdefault(key, {})[found["provider"]] = found
    return cases


def with_times(case: dict[str, Measurement], names: Iterable[str]) -> dict[str, Measurement]:
    """Those of the providers that have times."""
    return {name: case[name] for name in names if name in case and case[name]["status"] == OK}


def failures(record: Record) -> list[str]:
    """A line for every provider that failed or was wrong."""
    return [
        f"{found['provider']}, {found['workload']} {found['dtype']} {found['form']}: "
        f"{found['status']}: {found['reason']}"
        for found in record["measurements"]
        if found["status"] in FAILURES
    ]


def unpublishable(record: Record) -> list[str]:
    """Why no number of this record may stand in the docs."""
    reasons = failures(record)
    if not record["finished"]:
        reasons.append("the run was cut off")
    if record["settings"]["quick"]:
        reasons.append("it is a quick run")
    if record["commit"]["dirty"] is not False:
        reasons.append("it does not belong to a commit")
    return reasons
