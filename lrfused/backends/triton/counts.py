# mypy: ignore-errors
"""The counts of parameters' updates, and the scalars of the rule that follow from them."""

import triton
import triton.language as tl

from lrfused.backends.triton.hyperparameters import NOWHERE
from lrfused.backends.triton.program import evaluate_all
from lrfused.backends.triton.words import (
    END_OF_COUNTS,
    GRADIENT_KIND,
    GRADIENT_SIZE,
    GROUP_SCALARS_ROW,
    GROUP_SCALARS_SHAPE,
    GROUP_SIZE,
    GROUP_START,
    OF_SCALARS,
    SHAPE_RESULTS,
    SHAPE_VARIABLES,
    SHAPES_COUNT,
    SHAPES_FIRST,
    SLOTS,
    TENSOR_GROUP,
    TENSOR_SIZE,
    TENSORS,
    WIDTH,
)


@triton.jit
def active_tensors(table, call, tensor, tensors, now):
    """(groups of some tensors, whether they have a gradient and their group has started)."""
    present = tensor < tensors
    kind = tl.load(call.gradients + tensor * GRADIENT_SIZE + GRADIENT_KIND, mask=present, other=-1)
    group = tl.load(table.tensors + tensor * TENSOR_SIZE + TENSOR_GROUP, mask=present, other=0)
    start = tl.load(table.groups + group * GROUP_SIZE + GROUP_START, mask=present, other=0)
    return group, (kind >= 0) & (start <= now)


@triton.jit
def first_miscounted(table, call, state, now):
    """The first active tensor whose state["step"] cannot be a count; -1 if none."""
    tensors = tl.load(table.sizes + TENSORS)
    first = tl.full((), NOWHERE, tl.int64)
    for start in range(0, tensors, WIDTH):
        tensor = start + tl.arange(0, WIDTH)
        _group, active = active_tensors(table, call, tensor, tensors, now)
        shown = tl.load(state.steps + tensor, mask=active, other=0.0)
        is_count = (shown >= 0.0) & (shown < END_OF_COUNTS)
        here = tl.min(tl.where(is_count, NOWHERE, tensor.to(tl.int64)), 0)
        first = tl.where(here < first, here, first)
    return tl.where(first == NOWHERE, -1, first)


@triton.jit(noinline=True)
def count_updates(table, call, state, decided, now, SHAPES: tl.constexpr):
    """Count the updates of active parameters, and compute their scalars, each a lane."""
    tensors = tl.load(table.sizes + TENSORS)
    COUNT: tl.constexpr = SHAPES[SHAPES_COUNT]
    for start in range(0, tensors, WIDTH):
        tensor = start + tl.arange(0, WIDTH)
        group, active = active_tensors(table, call, tensor, tensors, now)
        count = tl.load(state.counts + tensor, mask=active, other=0)
        shown = tl.load(state.steps + tensor, mask=active, other=0.0)
        # Somebody wrote state["step"]: it counts.
        count = tl.where(shown != count.to(tl.float32), shown.to(tl.int64), count) + 1
        tl.store(state.counts + tensor, count, mask=active)
        tl.store(state.steps + tensor, count.to(tl.float32), mask=active)
        for S in tl.static_range(COUNT):
            if OF_SCALARS & SHAPES[SHAPES_FIRST + 2 * S + 1]:
                evaluate_scalars(
                    table, state, decided, tensors, tensor, group, active, count, SHAPES, S
                )


@triton.jit
def evaluate_scalars(
    table,
    state,
    decided,
    tensors,
    tensor,
    group,
    active,
    count,
    SHAPES: tl.constexpr,
    S: tl.constexpr,
):
    """The scalars of tensors whose groups have programs of this shape, and what is carried on."""
    AT: tl.constexpr = SHAPES[SHAPES_FIRST + 2 * S]
    CARRIED: tl.constexpr = SHAPES[AT + SHAPE_VARIABLES] - SLOTS
    SCALARS: tl.constexpr = SHAPES[AT + SHAPE_RESULTS] - CARRIED
    place = table.groups + group * GROUP_SIZE
    present = tensor < tensors  # in place of a mask that has to be waited for
    here = active & (tl.load(place + GROUP_SCALARS_SHAPE, mask=present, other=-1) == S)
    row = table.rows + tl.load(place + GROUP_SCALARS_ROW, mask=present, other=0)
    variables = ()
    for slot in tl.static_range(SLOTS):
        value = tl.load(decided.matrix + group * SLOTS + slot, mask=here, other=0.0)
        variables = variables + (value,)
    carried = state.carried + CARRIED * tensor
    for i in tl.static_range(CARRIED):
        variables = variables + (tl.load(carried + i, mask=here, other=0.0),)
    number = tl.where(here, count, 0).to(tl.float64)
    results = evaluate_all(SHAPES, AT, row, here, number, variables, table.samples, table.digits)
    for i in tl.static_range(SCALARS):
        tl.store(decided.records + i * tensors + tensor, results[i], mask=here)
    for i in tl.static_range(CARRIED):
        tl.store(carried + i, results[SCALARS + i], mask=here)
