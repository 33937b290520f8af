"""What `changes.py` times: a row is an entry of ROWS; the setups are in modules of their own."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import changed_steps
from changed_steps import CHANGED, USUAL, ChangedSteps, Edited, FirstGradients
from many_groups import PARTS, ManyGroups
from step_ends import StepEnds


class Subject(Protocol):
    """
    Members:
        turn: seconds of each part.
        check: the largest deviation from a reference; raises WrongResult.
    """

    def turn(self) -> dict[str, float]: ...
    def check(self) -> float: ...


@dataclass(frozen=True)
class Row:
    """
    Attributes:
        make: what is timed, for a side.
        parts: what is timed of it.
        is_short: it is in the README.
        is_quick: it is in a quick run.
    """

    name: str
    title: str
    make: Callable[[str], Subject]
    parts: tuple[str, ...] = (USUAL, CHANGED)
    is_short: bool = False
    is_quick: bool = False


EDITS = {
    "lr-tensor": ("a new Tensor as lr", changed_steps.lr_tensor),
    "lr-number": ("a new number as lr", changed_steps.lr_number),
    "moment": ("one replaced moment", changed_steps.moment),
    "data": ("one rebound p.data", changed_steps.data),
}
MANY = 10_000  # tensors, of which a change may take seconds: one in a turn
ENDS = {
    "tiny148": "148 tensors of 64",
    "tiny148-fresh": "148 of 64, fresh gradients",
    "tiny1000": "1,000 tensors of 64",
    "tiny1000-fresh": "1,000 of 64, fresh gradients",
}


def late(tensors: int) -> Row:
    return Row(
        f"late-{tensors}",
        f"{tensors:,} tensors, 200 with gradients, two more with their first",
        lambda side: ChangedSteps(FirstGradients, side, tensors, 5),
        is_short=tensors == 8000,
        is_quick=tensors == 500,
    )


def edited(name: str, tensors: int) -> Row:
    title, edit = EDITS[name]
    make = functools.partial(Edited, edit)
    return Row(
        f"{name}-{tensors}",
        f"{tensors:,} tensors, {title}",
        lambda side: ChangedSteps(make, side, tensors, 1 if tensors > MANY else 5),
        is_short=tensors == 1000,
        is_quick=tensors == 148,
    )


def groups(count: int, scheduled: bool) -> Row:
    return Row(
        f"groups-{count}-{'schedules' if scheduled else 'numbers'}",
        f"{count:,} groups with {'a schedule' if scheduled else 'a number'} each",
        lambda side: ManyGroups(scheduled, side, count),
        parts=PARTS,
        is_short=count == 2000,
        is_quick=count == 1000,
    )


def ends(workload: str) -> Row:
    return Row(
        workload,
        ENDS[workload],
        lambda side: StepEnds(side, workload),
        is_short=True,
        is_quick=workload.startswith("tiny148"),
    )


ROWS = {
    row.name: row
    for row in (
        *(ends(workload) for workload in ENDS),
        *(late(tensors) for tensors in (8000, 2000, 500)),
        *(edited(name, tensors) for tensors in (1000, 148, 16000) for name in EDITS),
        *(groups(count, scheduled) for count in (2000, 1000) for scheduled in (False, True)),
    )
}
