"""Programs as the kernels want them: shapes for the compiler, rows of data for lanes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lrfused.backends.triton import words as w
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.schedules.bytecode import Op, Program
from lrfused.schedules.payloads import INPUT_CODES
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot

# What is needed before plan, as bits.
EARLY = {Slot.CLIP_VALUE: int(w.EARLY_CLIP), Slot.AGC: int(w.EARLY_AGC)}

Row = list[int]
Instruction = tuple[int, int, int, int]
Code = tuple[int, ...]
Locate = Callable[[Schedule], Tensor]  # the tensor of an input
Owner = tuple[Slot | None, int]  # a schedule's slot, or None: the rule's scalars; and the group


@dataclass
class Programs:
    """All programs of an optimizer, those of one shape together."""

    flat: Code  # of the shapes: words.SHAPES_COUNT and what follows it
    spans: list[tuple[int, int]]  # of each shape: the first word of its rows, their number
    rows: Row
    samples: list[float]
    places: dict[Owner, tuple[int, int]]  # shape, first word of the row


@dataclass
class _Shape:
    rows: list[Row] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)  # of the rows

    @property
    def uses(self) -> int:
        """For what plan is not the only one to look at it, as bits."""
        return sum({_use(slot) for slot, _ in self.owners})


def _use(slot: Slot | None) -> int:
    return int(w.OF_SCALARS) if slot is None else EARLY.get(slot, 0)


def _words(values: tuple[float, ...]) -> Row:
    return [int(bits) for bits in np.array(values, dtype=np.float64).view(np.int64)]


def _code(program: Program, inputs: int, variables: int) -> Code:
    """What the compiler sees of a program, as one tuple of integers."""
    sizes = (len(program.constants), inputs, variables, len(program.code), len(program.results))
    code = _of_scalars(program.code) if variables else program.code
    return (*sizes, *(int(word) for row in code for word in row), *program.results)


def _of_scalars(code: Sequence[Instruction]) -> list[Instruction]:
    """Whose exponents in register 0 are counts."""
    return [
        (int(w.POWER_OF_COUNT) if op == Op.POW and b == 0 else op, a, b, c) for op, a, b, c in code
    ]


def _inputs(schedule: Schedule, locate: Locate) -> Row:
    """Address and dtype of each."""
    tensors = map(locate, schedule.inputs)
    return [word for x in tensors for word in (x.data_ptr(), INPUT_CODES[x.dtype])]


def arrange(
    schedules: list[tuple[int, Slot, Schedule]],
    rule: UpdateRule | None = None,
    groups: Sequence[GroupOptions] = (),
    locate: Locate = lambda node: node._payload[0],
) -> Programs:
    """The schedules of (group, slot), and the scalars of the rule's groups, by shape."""
    shapes: dict[Code, _Shape] = {}
    samples: list[float] = []
    tables: dict[int, int] = {}  # where each table begins, by its id: programs may share one

    def add(owner: Owner, code: Code, program: Program, place: int, inputs: Row) -> None:
        shape = shapes.setdefault(code, _Shape())
        shape.owners.append(owner)
        # The data of a program: words.ROW_PLACE and what follows it.
        if id(program.table) not in tables:
            tables[id(program.table)] = len(samples)
            samples.extend(program.table.tolist())
        begin = tables[id(program.table)]
        shape.rows.append([place, begin, *_words(program.constants), *inputs])

    for group, slot, schedule in schedules:
        code = _code(schedule.program, len(schedule.inputs), 0)
        place, inputs = group * len(Slot) + slot, _inputs(schedule, locate)
        add((slot, group), code, schedule.program, place, inputs)
    for group, options in enumerate(groups):
        assert rule is not None
        program, variables = rule.program(options), len(Slot) + len(rule.carried)
        add((None, group), _code(program, 0, variables), program, 0, [])
    return _flattened(shapes, samples)


def _flattened(shapes: dict[Code, _Shape], samples: list[float]) -> Programs:
    arranged = Programs((), [], [], samples, {})
    header, codes = [len(shapes)], list[int]()
    for index, (code, shape) in enumerate(shapes.items()):
        header += [1 + 2 * len(shapes) + len(codes), shape.uses]
        codes.extend(code)
        arranged.spans.append((len(arranged.rows), len(shape.rows)))
        for owner, row in zip(shape.owners, shape.rows, strict=True):
            arranged.places[owner] = (index, len(arranged.rows))
            arranged.rows += row
    arranged.flat = (*header, *codes)
    return arranged
