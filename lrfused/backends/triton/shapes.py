"""Schedule programs as the kernels want them: shapes for the compiler, rows of data for lanes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lrfused.backends.triton import words as w
from lrfused.schedules import Schedule
from lrfused.schedules.payloads import INPUT_DTYPES
from lrfused.settings.slots import Slot

# What is needed before plan, as bits.
EARLY = {Slot.CLIP_VALUE: int(w.EARLY_CLIP), Slot.AGC: int(w.EARLY_AGC)}
INPUT_CODES = {dtype: code for code, dtype in enumerate(INPUT_DTYPES)}

Row = list[int]
Locate = Callable[[Schedule], Tensor]  # the tensor of an input


@dataclass
class Programs:
    """All programs of an optimizer, those of one shape together."""

    flat: tuple[int, ...]  # of the shapes: words.SHAPES_COUNT and what follows it
    spans: list[tuple[int, int]]  # of each shape: the first word of its rows, their number
    rows: Row
    samples: list[float]
    early: dict[tuple[Slot, int], tuple[int, int]]  # (slot, group): shape, first word of its row


@dataclass
class _Shape:
    code: tuple[int, ...]
    rows: list[Row] = field(default_factory=list)
    early: dict[tuple[Slot, int], int] = field(default_factory=dict)  # (slot, group) -> lane


def _words(values: tuple[float, ...]) -> Row:
    return [int(bits) for bits in np.array(values, dtype=np.float64).view(np.int64)]


def _code(schedule: Schedule) -> tuple[int, ...]:
    """What the compiler sees of a program, as one tuple of integers."""
    program = schedule.program
    sizes = (len(program.constants), len(schedule.inputs), len(program.code), program.result)
    return (*sizes, *(int(word) for instruction in program.code for word in instruction))


def _row(place: int, first_sample: int, schedule: Schedule, locate: Locate) -> Row:
    """The data of a program: words.ROW_PLACE and what follows it."""
    row = [place, first_sample, *_words(schedule.program.constants)]
    for node in schedule.inputs:
        tensor = locate(node)
        row += [tensor.data_ptr(), INPUT_CODES[tensor.dtype]]
    return row


def arrange(
    programs: list[tuple[int, Slot, Schedule]], locate: Locate = lambda node: node._payload[0]
) -> Programs:
    """The programs of (group, slot), by shape."""
    shapes: dict[tuple[int, ...], _Shape] = {}
    samples: list[float] = []
    for group, slot, schedule in programs:
        code = _code(schedule)
        shape = shapes.setdefault(code, _Shape(code))
        if slot in EARLY:
            shape.early[slot, group] = len(shape.rows)
        shape.rows.append(_row(group * len(Slot) + slot, len(samples), schedule, locate))
        samples += schedule.program.table.tolist()
    arranged = Programs((), [], [], samples, {})
    header, codes = [len(shapes)], list[int]()
    for index, shape in enumerate(shapes.values()):
        slots = sum(EARLY[slot] for slot in {slot for slot, _ in shape.early})
        header += [1 + 2 * len(shapes) + len(codes), slots]
        codes.extend(shape.code)
        first = len(arranged.rows)
        arranged.spans.append((first, len(shape.rows)))
        for place, lane in shape.early.items():
            arranged.early[place] = (index, first + lane * len(shape.rows[0]))
        for row in shape.rows:
            arranged.rows += row
    arranged.flat = (*header, *codes)
    return arranged
