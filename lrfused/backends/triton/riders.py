# mypy: ignore-errors
"""Riders: what is done to a stretch besides an update, after it, as in csrc/riders/."""

from typing import NamedTuple

import triton
import triton.language as tl

from lrfused.backends.triton.memory import element_size, pointer, read, write
from lrfused.backends.triton.words import (
    EMA_DECAY,
    FLOAT64,
    GRADIENT_ADDRESS,
    GRADIENT_SIZE,
    GROUP_AVERAGE_EVERY,
    GROUP_SIZE,
    KIND_AVERAGE,
    KIND_G,
    KIND_MASK,
    KIND_P,
    KIND_STATE,
    NOW,
    OPERANDS,
    PART_COUNT,
    PART_OFFSET,
    PART_SIZE,
    PART_TENSOR,
    PROCEED,
    PROCEEDS,
    SKIPPED,
    SLOTS,
    TENSOR_AVERAGE,
    TENSOR_GROUP,
    TENSOR_MASK,
    TENSOR_P,
    TENSOR_SIZE,
    TENSOR_STATE,
    WRITE_GRADS,
    ZERO_GRADS,
)

TILE = tl.constexpr(512)


class Bits(NamedTuple):
    """The words of a tensor's mask (uint32, lowest bit first), and the bit of its first element."""

    words: object
    first: object


@triton.jit
def bits_of(row, offset):
    """Of the tensor with this row, for the elements from an offset on."""
    return Bits(tl.load(row + TENSOR_MASK).to(tl.pointer_type(tl.uint32)), offset)


@triton.jit
def keeps(bits, place, present):
    """Which elements are kept."""
    bit = bits.first + place
    if present is None:
        words = tl.load(bits.words + (bit >> 5))
    else:
        words = tl.load(bits.words + (bit >> 5), mask=present, other=0)
    return ((words >> (bit & 31).to(tl.uint32)) & 1) != 0


@triton.jit
def kept_count(bits, count):
    """How many of the first so many elements are kept."""
    kept = tl.full((TILE,), 0, tl.int32)
    for start in range(0, count, TILE):
        place = start + tl.arange(0, TILE)
        kept += keeps(bits, place, place < count).to(tl.int32)
    return tl.sum(kept, 0)


@triton.jit
def update_average(a, p, weight):
    """lrfused/rules/average.py."""
    change = p - a
    mixed = tl.where(weight < 0.5, a + change * weight, p - change * (1.0 - weight))
    return tl.where(a != a, p, mixed)


@triton.jit
def clear_masked(
    row, g, bits, offset, count, KINDS: tl.constexpr, AT: tl.constexpr, FLAGS: tl.constexpr
):
    """Masked elements of a parameter and its operands become 0, and those of written gradients."""
    p = pointer(start_of(tl.load(row + TENSOR_P), offset, KINDS[AT + KIND_P]), KINDS[AT + KIND_P])
    for start in range(0, count, TILE):
        place = start + tl.arange(0, TILE)
        present = place < count
        gone = present & (keeps(bits, place, present) == 0)
        zeros = tl.full((TILE,), 0.0, tl.float32)
        write(p, place, gone, zeros, KINDS[AT + KIND_P])
        for i in tl.static_range(OPERANDS):
            if KINDS[AT + KIND_STATE + i] >= 0:
                x = tl.load(row + (TENSOR_STATE + i))
                x = start_of(x, offset, KINDS[AT + KIND_STATE + i])
                x = pointer(x, KINDS[AT + KIND_STATE + i])
                write(x, place, gone, zeros, KINDS[AT + KIND_STATE + i])
        if WRITE_GRADS & FLAGS:
            write(pointer(g, KINDS[AT + KIND_G]), place, gone, zeros, KINDS[AT + KIND_G])


@triton.jit
def average(row, bits, offset, count, weight, KINDS: tl.constexpr, AT: tl.constexpr):
    """Update a parameter's average, which is 0 where it is masked."""
    P: tl.constexpr = KINDS[AT + KIND_P]
    A: tl.constexpr = KINDS[AT + KIND_AVERAGE]
    DOUBLE: tl.constexpr = P == FLOAT64
    p = pointer(start_of(tl.load(row + TENSOR_P), offset, P), P)
    a = pointer(start_of(tl.load(row + TENSOR_AVERAGE), offset, A), A)
    weight = weight.to(tl.float64 if DOUBLE else tl.float32)
    for start in range(0, count, TILE):
        place = start + tl.arange(0, TILE)
        present = place < count
        before = read(a, place, present, A, DOUBLE)
        after = update_average(before, read(p, place, present, P, DOUBLE), weight)
        if KINDS[AT + KIND_MASK]:
            after = tl.where(keeps(bits, place, present), after, 0.0)
        write(a, place, present, after, A)


@triton.jit
def zero(g, count, G: tl.constexpr):
    """zero_grads: the gradient becomes 0."""
    g = pointer(g, G)
    for start in range(0, count, TILE):
        place = start + tl.arange(0, TILE)
        write(g, place, place < count, tl.full((TILE,), 0.0, tl.float32), G)


@triton.jit
def start_of(address, offset, DTYPE: tl.constexpr):
    """The address of an element."""
    return address + offset * element_size(DTYPE)


@triton.jit(noinline=True)
def ride_stretch(
    table,
    gradients,
    decided,
    stretch,
    moves,
    KINDS: tl.constexpr,
    AT: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """What rides with a stretch of a tensor of the kind at KINDS[AT]: a function that is called."""
    part = table.stretches + stretch * PART_SIZE
    tensor = tl.load(part + PART_TENSOR)
    offset = tl.load(part + PART_OFFSET)
    count = tl.load(part + PART_COUNT).to(tl.int32)
    row = table.tensors + tensor * TENSOR_SIZE
    bits = bits_of(row, offset)
    verdict = tl.load(decided.words + PROCEED)
    g = tl.load(gradients + tensor * GRADIENT_SIZE + GRADIENT_ADDRESS)
    if KINDS[AT + KIND_G] >= 0:
        g = start_of(g, offset, KINDS[AT + KIND_G])
        if KINDS[AT + KIND_MASK]:
            if moves:
                clear_masked(row, g, bits, offset, count, KINDS, AT, FLAGS)
            tl.debug_barrier()
    if KINDS[AT + KIND_AVERAGE] >= 0:
        group = tl.load(row + TENSOR_GROUP)
        every = tl.load(table.groups + group * GROUP_SIZE + GROUP_AVERAGE_EVERY)
        decay = tl.load(decided.matrix + group * SLOTS + EMA_DECAY)
        if (verdict == PROCEEDS) & (tl.load(decided.words + NOW) % every == 0):
            average(row, bits, offset, count, 1.0 - decay, KINDS, AT)
    if ((ZERO_GRADS & FLAGS) != 0) and (KINDS[AT + KIND_G] >= 0):  # noqa: SIM102
        if (verdict == PROCEEDS) | (verdict == SKIPPED):
            zero(g, count, KINDS[AT + KIND_G])
