# mypy: ignore-errors
"""Apply: one pass over parameters, gradients and moments; csrc/core/update.h in Triton."""

from typing import NamedTuple

import triton
import triton.language as tl

from lrfused.backends.triton.memory import element_size, pointer, read, write
from lrfused.backends.triton.record import make_record
from lrfused.backends.triton.scalars import clip_value
from lrfused.backends.triton.words import (
    FLOAT32,
    FLOAT64,
    GRADIENT_ADDRESS,
    GRADIENT_KIND,
    GRADIENT_SIZE,
    GROUP_SIZE,
    GROUP_START,
    KIND_AGC,
    KIND_CLIP,
    KIND_G,
    KIND_M,
    KIND_P,
    KIND_SIZE,
    KIND_V,
    KIND_X,
    NOW,
    PART_COUNT,
    PART_OFFSET,
    PART_SIZE,
    PART_TENSOR,
    PART_UNIT,
    PROCEED,
    TENSOR_GROUP,
    TENSOR_M,
    TENSOR_P,
    TENSOR_SIZE,
    TENSOR_V,
    TENSOR_X,
    WRITE_GRADS,
)

THREADS = tl.constexpr(128)  # of a program


class Vectors(NamedTuple):
    """Where a stretch starts in each of its tensors: addresses, then pointers."""

    p: object
    g: object
    m: object
    v: object
    x: object


@triton.jit
def square_root(x, DOUBLE: tl.constexpr):
    """IEEE, as float64 has it anyway."""
    return tl.sqrt(x) if DOUBLE else tl.sqrt_rn(x)


@triton.jit
def divide(x, y, DOUBLE: tl.constexpr):
    """IEEE, as float64 has it anyway."""
    return x / y if DOUBLE else tl.div_rn(x, y)


@triton.jit
def update_tile(
    at,
    offsets,
    present,
    r,
    P: tl.constexpr,
    G: tl.constexpr,
    M: tl.constexpr,
    V: tl.constexpr,
    X: tl.constexpr,
    CLIP: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """AdamW of some elements; all loads come before the first store."""
    DOUBLE: tl.constexpr = P == FLOAT64
    g = read(at.g, offsets, present, G, DOUBLE) * r.before
    p = read(at.p, offsets, present, P, DOUBLE)
    m = read(at.m, offsets, present, M, DOUBLE)
    v = read(at.v, offsets, present, V, DOUBLE)
    if X >= 0:
        x = read(at.x, offsets, present, X, DOUBLE)
    if CLIP:
        g = clip_value(g, r.bound) * r.after
    p = p * r.decay
    m = m * r.beta1 + g * r.one_minus_beta1
    v = v * r.beta2 + (g * r.one_minus_beta2) * g
    second = v
    if X >= 0:
        second = tl.where((v > x) | (v != v), v, x)
        write(at.x, offsets, present, second, X)
    denominator = square_root(second, DOUBLE) * r.inverse_root + r.eps
    p = p - divide(m * r.step_size, denominator, DOUBLE)
    write(at.p, offsets, present, p, P)
    write(at.m, offsets, present, m, M)
    write(at.v, offsets, present, v, V)
    if WRITE_GRADS & FLAGS:
        write(at.g, offsets, present, g * r.sign, G)


@triton.jit
def start_of(address, offset, DTYPE: tl.constexpr):
    """The address of an element."""
    return address + offset * element_size(DTYPE)


@triton.jit
def update_tiles(
    addresses,
    first,
    last,
    r,
    P: tl.constexpr,
    G: tl.constexpr,
    M: tl.constexpr,
    V: tl.constexpr,
    X: tl.constexpr,
    CLIP: tl.constexpr,
    FLAGS: tl.constexpr,
    TILE: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Elements from ``first`` to ``last``: WHOLE tiles by 128-bit accesses, others as they lie."""
    at = Vectors(
        pointer(addresses.p, P, WHOLE),
        pointer(addresses.g, G, WHOLE),
        pointer(addresses.m, M, WHOLE),
        pointer(addresses.v, V, WHOLE),
        pointer(addresses.x, X if X >= 0 else P, WHOLE),
    )
    for start in range(first, last, TILE):
        offsets = start + tl.arange(0, TILE)
        present = None if WHOLE else offsets < last
        update_tile(at, offsets, present, r, P, G, M, V, X, CLIP, FLAGS)


@triton.jit
def apply_stretch(
    table, gradients, decided, stretch, KINDS: tl.constexpr, KIND: tl.constexpr, FLAGS: tl.constexpr
):
    """One stretch of a tensor of this kind: whole aligned tiles, then what is left."""
    P: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_P]
    G: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_G]
    M: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_M]
    V: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_V]
    X: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_X]
    AGC: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_AGC]
    CLIP: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_CLIP]
    TYPE: tl.constexpr = tl.float64 if P == FLOAT64 else tl.float32
    part = table.stretches + stretch * PART_SIZE
    tensor = tl.load(part + PART_TENSOR)
    offset = tl.load(part + PART_OFFSET)
    count = tl.load(part + PART_COUNT).to(tl.int32)
    row = table.tensors + tensor * TENSOR_SIZE
    group = tl.load(row + TENSOR_GROUP)
    r = make_record(table, decided, tensor, group, tl.load(part + PART_UNIT), AGC, CLIP, TYPE)
    g = tl.load(gradients + tensor * GRADIENT_SIZE + GRADIENT_ADDRESS)
    p = start_of(tl.load(row + TENSOR_P), offset, P)
    g = start_of(g, offset, G)
    m = start_of(tl.load(row + TENSOR_M), offset, M)
    v = start_of(tl.load(row + TENSOR_V), offset, V)
    x = start_of(tl.load(row + TENSOR_X), offset, X) if X >= 0 else p
    at = Vectors(p, g, m, v, x)
    # As many for each thread as make 16 bytes of the smallest dtype.
    HALVES: tl.constexpr = P > FLOAT32 or G > FLOAT32 or M > FLOAT32 or V > FLOAT32 or X > FLOAT32
    TILE: tl.constexpr = THREADS * (8 if HALVES else 4)
    whole = tl.where(((p | g | m | v | x) & 15) == 0, count // TILE * TILE, 0)
    update_tiles(at, 0, whole, r, P, G, M, V, X, CLIP, FLAGS, TILE, True)
    update_tiles(at, whole, count, r, P, G, M, V, X, CLIP, FLAGS, TILE, False)


@triton.jit(noinline=True)
def apply_apart(
    table, gradients, decided, stretch, KINDS: tl.constexpr, KIND: tl.constexpr, FLAGS: tl.constexpr
):
    """One of several kinds: a function that is called, as in measure."""
    apply_stretch(table, gradients, decided, stretch, KINDS, KIND, FLAGS)


@triton.jit(do_not_specialize=["gradients"])
def apply_kernel(table, gradients, decided, KINDS: tl.constexpr, FLAGS: tl.constexpr):
    """A program a stretch, last first: what measure read last is still in the cache."""
    stretch = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    tensor = tl.load(table.stretches + stretch * PART_SIZE + PART_TENSOR)
    group = tl.load(table.tensors + tensor * TENSOR_SIZE + TENSOR_GROUP)
    kind = tl.load(gradients + tensor * GRADIENT_SIZE + GRADIENT_KIND)
    start = tl.load(table.groups + group * GROUP_SIZE + GROUP_START)
    proceed = tl.load(decided.words + PROCEED) != 0
    if proceed & (kind >= 0) & (tl.load(decided.words + NOW) >= start):
        COUNT: tl.constexpr = len(KINDS) // KIND_SIZE
        if COUNT == 1:
            apply_stretch(table, gradients, decided, stretch, KINDS, 0, FLAGS)
        else:
            for K in tl.static_range(COUNT):
                if kind == K:
                    apply_apart(table, gradients, decided, stretch, KINDS, K, FLAGS)
