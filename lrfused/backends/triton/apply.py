# mypy: ignore-errors
"""Apply: one pass over parameters, gradients and what the rule's state has of them."""

from typing import NamedTuple

import triton
import triton.language as tl

from lrfused.backends.triton.memory import pointer, read, write
from lrfused.backends.triton.record import make_record
from lrfused.backends.triton.riders import ride_stretch, start_of
from lrfused.backends.triton.rules import update
from lrfused.backends.triton.scalars import clip_value
from lrfused.backends.triton.words import (
    FLOAT64,
    GRADIENT_ADDRESS,
    GRADIENT_KIND,
    GRADIENT_SIZE,
    GROUP_SIZE,
    GROUP_START,
    KIND_AGC,
    KIND_CLIP,
    KIND_EACH,
    KIND_G,
    KIND_P,
    KIND_SIZE,
    KIND_STATE,
    NOW,
    OPERANDS,
    PART_COUNT,
    PART_OFFSET,
    PART_SIZE,
    PART_TENSOR,
    PART_UNIT,
    PROCEED,
    PROCEEDS,
    RIDES,
    TENSOR_GROUP,
    TENSOR_P,
    TENSOR_SIZE,
    TENSOR_STATE,
    WRITE_GRADS,
)

THREADS = tl.constexpr(128)  # of a program


class Stretch(NamedTuple):
    """Where a stretch starts in each of its tensors: addresses, then pointers."""

    p: object
    g: object
    state: object  # a tuple, of the operands that are used


@triton.jit
def update_tile(
    at,
    offsets,
    present,
    r,
    RULE: tl.constexpr,
    KINDS: tl.constexpr,
    AT: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """The rule's update of some elements; all loads come before the first store."""
    P: tl.constexpr = KINDS[AT + KIND_P]
    G: tl.constexpr = KINDS[AT + KIND_G]
    DOUBLE: tl.constexpr = P == FLOAT64
    g = read(at.g, offsets, present, G, DOUBLE) * r.pre_scale
    p = read(at.p, offsets, present, P, DOUBLE)
    state = ()
    for i in tl.static_range(len(at.state)):
        x = read(at.state[i], offsets, present, KINDS[AT + KIND_STATE + i], DOUBLE)
        state = state + (x,)
    if KINDS[AT + KIND_CLIP]:
        g = clip_value(g, r.clip_bound) * r.post_scale
    p, state = update(RULE, g, p, state, r.scalars)
    write(at.p, offsets, present, p, P)
    for i in tl.static_range(len(at.state)):
        write(at.state[i], offsets, present, state[i], KINDS[AT + KIND_STATE + i])
    if WRITE_GRADS & FLAGS:
        write(at.g, offsets, present, g * r.sign, G)


@triton.jit
def update_tiles(
    addresses,
    first,
    last,
    r,
    RULE: tl.constexpr,
    KINDS: tl.constexpr,
    AT: tl.constexpr,
    FLAGS: tl.constexpr,
    TILE: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Elements from ``first`` to ``last``: WHOLE tiles by 128-bit accesses, others as they lie."""
    p = pointer(addresses.p, KINDS[AT + KIND_P], WHOLE)
    g = pointer(addresses.g, KINDS[AT + KIND_G], WHOLE)
    state = ()
    for i in tl.static_range(len(addresses.state)):
        state = state + (pointer(addresses.state[i], KINDS[AT + KIND_STATE + i], WHOLE),)
    at = Stretch(p, g, state)
    for start in range(first, last, TILE):
        offsets = start + tl.arange(0, TILE)
        present = None if WHOLE else offsets < last
        update_tile(at, offsets, present, r, RULE, KINDS, AT, FLAGS)


@triton.jit
def apply_stretch(
    table,
    gradients,
    decided,
    stretch,
    RULE: tl.constexpr,
    SCALARS: tl.constexpr,
    KINDS: tl.constexpr,
    AT: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """One stretch of a tensor of the kind at KINDS[AT]: whole aligned tiles, then what is left."""
    P: tl.constexpr = KINDS[AT + KIND_P]
    TYPE: tl.constexpr = tl.float64 if P == FLOAT64 else tl.float32
    part = table.stretches + stretch * PART_SIZE
    tensor = tl.load(part + PART_TENSOR)
    offset = tl.load(part + PART_OFFSET)
    count = tl.load(part + PART_COUNT).to(tl.int32)
    row = table.tensors + tensor * TENSOR_SIZE
    group = tl.load(row + TENSOR_GROUP)
    unit = tl.load(part + PART_UNIT)
    r = make_record(
        table,
        decided,
        tensor,
        group,
        unit,
        SCALARS,
        KINDS[AT + KIND_AGC],
        KINDS[AT + KIND_CLIP],
        TYPE,
    )
    g = tl.load(gradients + tensor * GRADIENT_SIZE + GRADIENT_ADDRESS)
    g = start_of(g, offset, KINDS[AT + KIND_G])
    p = start_of(tl.load(row + TENSOR_P), offset, P)
    state = ()
    bits = p | g  # of all addresses
    for i in tl.static_range(OPERANDS):
        if KINDS[AT + KIND_STATE + i] >= 0:
            x = start_of(tl.load(row + (TENSOR_STATE + i)), offset, KINDS[AT + KIND_STATE + i])
            state = state + (x,)
            bits = bits | x
    at = Stretch(p, g, state)
    TILE: tl.constexpr = THREADS * KINDS[AT + KIND_EACH]
    whole = tl.where((bits & 15) == 0, count // TILE * TILE, 0)
    update_tiles(at, 0, whole, r, RULE, KINDS, AT, FLAGS, TILE, True)
    update_tiles(at, whole, count, r, RULE, KINDS, AT, FLAGS, TILE, False)


@triton.jit(noinline=True)
def apply_apart(
    table,
    gradients,
    decided,
    stretch,
    RULE: tl.constexpr,
    SCALARS: tl.constexpr,
    KINDS: tl.constexpr,
    AT: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """One of several kinds: a function that is called, as in measure."""
    apply_stretch(table, gradients, decided, stretch, RULE, SCALARS, KINDS, AT, FLAGS)


@triton.jit(do_not_specialize=["gradients"])
def apply_kernel(
    table,
    gradients,
    decided,
    RULE: tl.constexpr,
    SCALARS: tl.constexpr,
    KINDS: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """A program a stretch, last first: what measure read last is still in the cache.

    RULE is the name of the optimizer's rule, SCALARS the number of its scalars.
    """
    stretch = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    tensor = tl.load(table.stretches + stretch * PART_SIZE + PART_TENSOR)
    group = tl.load(table.tensors + tensor * TENSOR_SIZE + TENSOR_GROUP)
    kind = tl.load(gradients + tensor * GRADIENT_SIZE + GRADIENT_KIND)
    start = tl.load(table.groups + group * GROUP_SIZE + GROUP_START)
    proceed = tl.load(decided.words + PROCEED) == PROCEEDS
    moves = proceed & (kind >= 0) & (tl.load(decided.words + NOW) >= start)
    COUNT: tl.constexpr = len(KINDS) // KIND_SIZE
    if moves:
        if COUNT == 1:
            apply_stretch(table, gradients, decided, stretch, RULE, SCALARS, KINDS, 0, FLAGS)
        else:
            for K in tl.static_range(COUNT):
                if KINDS[K * KIND_SIZE + KIND_G] >= 0:  # noqa: SIM102 (for the compiler)
                    if kind == K:
                        apply_apart(
                            table,
                            gradients,
                            decided,
                            stretch,
                            RULE,
                            SCALARS,
                            KINDS,
                            K * KIND_SIZE,
                            FLAGS,
                        )
    if RIDES & FLAGS:
        tl.debug_barrier()  # other threads may read what was written
        kind = tl.where(kind >= 0, kind, -2 - kind)
        for K in tl.static_range(COUNT):
            if kind == K:
                ride_stretch(table, gradients, decided, stretch, moves, KINDS, K * KIND_SIZE, FLAGS)
