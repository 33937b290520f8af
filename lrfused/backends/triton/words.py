# mypy: ignore-errors
"""The words that the host writes and the kernels read: places, flags, and what holds them.

Kernels take names from here one by one, because Triton's cache on disk knows only constants that
a kernel's own module imports.
"""

from typing import NamedTuple

import triton.language as tl
from torch import Tensor

from lrfused.backends.reference import scalars
from lrfused.numerics import norm
from lrfused.rules import RULES
from lrfused.schedules.bytecode import Op
from lrfused.settings import options, slots
from lrfused.settings.slots import Range, Slot
from lrfused.state import device_state
from lrfused.state.device_state import Field


def _constant(value):
    return tl.constexpr(value if isinstance(value, float) else int(value))


# Codes of dtypes, in the order of lrfused.memory.formats.DTYPES and of the inputs' INPUT_DTYPES.
FLOAT64, FLOAT32, BFLOAT16, FLOAT16, INT64, INT32 = map(_constant, range(6))

# The options that kernels are compiled for, as bits; all others are data.
(
    MEASURES,
    CLIP_NORM,
    INFINITY_NORM,
    CHECKS_GRADIENTS,
    RAISES,
    ADVANCES_ON_SKIP,
    DYNAMIC_SCALE,
    WRITE_GRADS,
    ZERO_GRADS,
    RIDES,  # something may be done besides updates
    CLIPS_BEFORE_NORM,
    ADAPTIVE,
    ONLY_MEASURES,  # plan comes by itself
) = (_constant(1 << bit) for bit in range(13))

# The most operands that a rule's state has.
OPERANDS = _constant(max(len(rule.operands) for rule in RULES))

# A kind of tensor, for which kernels are compiled: the dtypes of parameter and gradient (-1: none),
# whether the gradient is clipped by unit and by value, how many elements a thread of apply takes at
# once, whether there is a mask, and the dtypes of average and operands (-1: not used).
KIND_P, KIND_G, KIND_AGC, KIND_CLIP, KIND_EACH, KIND_MASK, KIND_AVERAGE, KIND_STATE = map(
    _constant, range(8)
)
KIND_SIZE = _constant(int(KIND_STATE) + int(OPERANDS))

# Shapes of programs: their number, of each where it starts and what it is of: schedules of slots
# that are needed before plan, scalars of a rule. Then each: the numbers of what it has, four words
# an instruction, the registers of its results.
SHAPES_COUNT, SHAPES_FIRST = map(_constant, range(2))
EARLY_CLIP, EARLY_AGC, OF_SCALARS = (_constant(1 << bit) for bit in range(3))
SHAPE_CONSTANTS, SHAPE_INPUTS, SHAPE_VARIABLES, SHAPE_COUNT, SHAPE_RESULTS, SHAPE_CODE = map(
    _constant, range(6)
)
# In code of scalars, POW of the count is repeated squaring: the compiler need not see all else.
POWER_OF_COUNT = _constant(len(Op))
# The data of one program: where its value goes, its table, then constants and inputs.
ROW_PLACE, ROW_TABLE, ROW_FIXED = map(_constant, range(3))

# Sizes of the table; long is a unit of several chunks, and a span that holds such chunks.
GROUPS, TENSORS, CHUNKS, SPANS, LONG_UNITS, LONG_SPANS = map(_constant, range(6))
# A chunk or a stretch: a part of a unit of a tensor.
PART_TENSOR, PART_UNIT, PART_OFFSET, PART_COUNT, PART_SIZE = map(_constant, range(5))
# What a program measures: half the lanes of a chunk. Of the second half none is in a short chunk.
HALF_CHUNK, HALF_SECOND, HALF_SIZE = map(_constant, range(3))
# A tensor: addresses and its group. Of its gradient: address and kind (without one -1; averaged all
# the same -2 - kind).
TENSOR_P, TENSOR_GROUP, TENSOR_AVERAGE, TENSOR_MASK, TENSOR_STATE = map(_constant, range(5))
TENSOR_SIZE = _constant(int(TENSOR_STATE) + int(OPERANDS))
GRADIENT_ADDRESS, GRADIENT_KIND, GRADIENT_SIZE = map(_constant, range(3))
# A unit: its chunks and its group.
UNIT_FIRST, UNIT_CHUNKS, UNIT_GROUP, UNIT_SIZE = map(_constant, range(4))
# A group: options, where the programs of its clip_value, its agc and its rule's scalars are (shape
# -1 without one), and the range of each slot.
(
    GROUP_START,
    GROUP_AGC,
    GROUP_MAXIMIZE,
    GROUP_AVERAGE_EVERY,
    GROUP_CLIP_SHAPE,
    GROUP_CLIP_ROW,
    GROUP_AGC_SHAPE,
    GROUP_AGC_ROW,
    GROUP_SCALARS_SHAPE,
    GROUP_SCALARS_ROW,
    GROUP_RANGES,
) = map(_constant, range(11))
GROUP_SIZE = _constant(int(GROUP_RANGES) + len(Slot))
# Numbers of the options.
(
    ACCUMULATION_STEPS,
    GROWTH_FACTOR,
    BACKOFF_FACTOR,
    SMALLEST_SCALE,
    LARGEST_SCALE,
    GROWTH_INTERVAL,
    HYSTERESIS,
    NUMBERS,
) = map(_constant, range(8))
# Numbers of a call: an outside GradScaler's, the caller's hyperparameters, 1 where those count.
GRAD_SCALE, FOUND_INF, VALUES = map(_constant, range(3))
# What plan decides: what apply does, the step, the multipliers of gradients.
PROCEED, NOW, DECIDED_WORDS = map(_constant, range(3))
REFUSED, PROCEEDS, SKIPPED = map(_constant, range(3))
INVERSE, COEFFICIENT, DECIDED_SCALARS = map(_constant, range(3))
# What measure finds in a chunk.
ACTIVE, CLIPPED, OVERFLOWS = (_constant(1 << bit) for bit in range(3))
# And what is found of a span: of its gradients as they are and as the global clip sees them.
(
    SPAN_RAW,
    SPAN_LARGEST,
    SPAN_SEEN,
    SPAN_SEEN_LARGEST,
    SPAN_FINDINGS,
    SPAN_ELEMENTS,
    SPAN_NORMAL,
    SPAN_SIZE,
) = map(_constant, range(8))

# The hyperparameters that plan knows; all others are matters of rules.
MAX_GRAD_NORM, CLIP_VALUE, AGC, EMA_DECAY = map(_constant, slots.OPTIONAL)
SLOTS = _constant(len(Slot))
BELOW_ONE, LIMIT, POSITIVE, ZERO, UNIT = map(
    _constant, (Range.BELOW_ONE, Range.LIMIT, Range.POSITIVE, Range.ZERO, Range.UNIT)
)

STEP = _constant(Field.STEP)
SKIPPED_STEPS = _constant(Field.SKIPPED_STEPS)
CONSECUTIVE_SKIPS = _constant(Field.CONSECUTIVE_SKIPS)
CLIPPED_STEPS = _constant(Field.CLIPPED_STEPS)
GROWTH_TRACKER = _constant(Field.GROWTH_TRACKER)
HYSTERESIS_TRACKER = _constant(Field.HYSTERESIS_TRACKER)
ERROR = _constant(Field.ERROR)
ERROR_PLACE = _constant(Field.ERROR_PLACE)
ERROR_SLOT = _constant(Field.ERROR_SLOT)
ERROR_STEP = _constant(Field.ERROR_STEP)
ERROR_VALUE = _constant(Field.ERROR_VALUE)
GRAD_NORM = _constant(Field.GRAD_NORM)
CLIP_COEFFICIENT = _constant(Field.CLIP_COEFFICIENT)
LARGEST_GRADIENT = _constant(Field.LARGEST_GRADIENT)
TINY_GRADIENTS = _constant(Field.TINY_GRADIENTS)
LOSS_SCALE = _constant(Field.LOSS_SCALE)
FIELDS = _constant(len(device_state.Field))

NO_ERROR, BAD_HYPERPARAMETER, BAD_GRADIENT, BAD_COUNT = map(_constant, options.Error)

BLOCK = _constant(norm.BLOCK)
COLUMNS = _constant(norm.COLUMNS)
LANES = _constant(norm.LANE_BLOCKS * norm.COLUMNS // 2)  # of half a chunk
HALF = _constant(norm.LANE_BLOCKS * norm.BLOCK // 2)  # elements that enter them in one turn
SPAN = _constant(norm.SPAN)  # chunks
SPAN_LANES = _constant(norm.SPAN_LANES)
# How often neighbours are added until one number is left.
LANE_LEVELS, SPAN_LEVELS, SPAN_LANE_LEVELS = (
    _constant(int(size).bit_length() - 1) for size in (LANES, SPAN, SPAN_LANES)
)
SMALLEST_SUM = _constant(norm.SMALLEST)
LARGEST_SUM = _constant(norm.LARGEST)
END_OF_COUNTS = _constant(2.0**53)
LARGEST_FLOAT32 = _constant(slots.LARGEST_FLOAT32)
UNIT_NORM_FLOOR = _constant(scalars.UNIT_NORM_FLOOR)

STRETCH = _constant(8192)  # elements that one program of apply updates
WIDTH = _constant(256)  # lanes of plan, which stand for groups or tensors


class Table(NamedTuple):
    """All that does not change from step to step: int64, but samples and numbers are float64."""

    sizes: Tensor
    chunks: Tensor
    halves: Tensor
    stretches: Tensor
    tensors: Tensor
    units: Tensor
    spans: Tensor  # of each, how many programs measure it
    long_units: Tensor
    long_spans: Tensor
    groups: Tensor
    shapes: Tensor  # of each: the first word of its rows, their number
    rows: Tensor
    samples: Tensor
    digits: Tensor
    numbers: Tensor


FLOATS = ("samples", "numbers")


class Call(NamedTuple):
    """What the host knows anew at each step; the last two are an outside GradScaler's tensors.

    Kernels take them one by one: what varies must not be specialised on, and `do_not_specialize`
    does not reach what lies in a tuple. All other tensors are allocations of this backend's own, at
    multiples of 16 bytes.
    """

    gradients: Tensor
    numbers: Tensor
    grad_scale: Tensor
    found_inf: Tensor


class State(NamedTuple):
    """The tensors of DeviceState."""

    words: Tensor
    loss_scale: Tensor
    counts: Tensor
    steps: Tensor
    carried: Tensor


class Measured(NamedTuple):
    """What measure finds in both halves of each chunk and in each span, and who has finished."""

    raw: Tensor
    clipped: Tensor
    param: Tensor
    largest: Tensor  # float64 bits of the largest absolute value
    seen: Tensor  # those after unscaling and value clip
    findings: Tensor
    elements: Tensor
    normal: Tensor  # how many of these are neither zero nor subnormal
    spans: Tensor
    tickets: Tensor  # of all spans together, then of each: how many programs have finished


class Decided(NamedTuple):
    """What plan tells apply."""

    matrix: Tensor  # hyperparameters by group and slot
    records: Tensor  # a row of each of the rule's scalars: it of each tensor
    factors: Tensor  # of adaptive clipping, by unit
    scalars: Tensor
    words: Tensor
