"""A run of several sittings: what differs between processes and minutes enters the spread.

Rounds of one process share its memory's places and the neighbours of its minutes; their spread says
nothing about another process. Each sitting is a process, which adds its rounds to the result file.
"""

import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import records
import result_files
from records import Record
from table import TARGETS
from workloads import Case

SCRIPT = Path(__file__).with_name("bench.py")


def hold(arguments: Sequence[str], count: int) -> int:
    """One process after the other, until one fails; returns its exit status."""
    for number in range(1, count + 1):
        command = [sys.executable, str(SCRIPT), *arguments, "--sitting", str(number)]
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
    return 0


def take_up(options: Namespace) -> Record:
    """The record of the sittings before this one.

    Raises:
        ValueError: it is of another sitting, or of another commit.
    """
    record = records.read(options.out)
    if record["sittings"] != options.sitting - 1:
        raise ValueError(
            f"{options.out}: must have {options.sitting - 1} sittings, has {record['sittings']}"
        )
    if record["commit"] != result_files.commit():
        raise ValueError(f"{options.out}: must be of the present commit, {result_files.commit()}")
    return {**record, "sittings": options.sitting, "finished": False}


def cases_again(record: Record, cases: list[Case]) -> list[Case]:
    """Those that the docs show: the ones with a target or a rider."""
    shown = {key for key, _ in TARGETS[record["device"]]}
    return [case for case in cases if case.key in shown or case.workload.rider]


def providers_again(record: Record, case: Case, names: list[str]) -> list[str]:
    """Those that have times."""
    return list(records.with_times(records.by_case(record)[case.key], names))
