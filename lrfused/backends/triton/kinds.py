"""Kinds of tensors: for each of them kernels are compiled."""

from collections.abc import Iterable, Sequence

import torch

from lrfused.backends.triton import words as w
from lrfused.backends.work import Work
from lrfused.memory.formats import CODES, DTYPES

Kind = tuple[int, ...]  # words.KIND_P and what follows it

# Of a thread of measure on NVIDIA's chips: three programs share a multiprocessor. What the compiler
# takes by itself varies with the order of what is rare.
REGISTERS = 168


def kind(
    p: int,
    g: int,
    state: Sequence[int],
    agc: bool = False,
    clip: bool = False,
    mask: bool = False,
    average: int = -1,
) -> Kind:
    """Of the codes of dtypes; whether the gradient is clipped by unit and by value, or masked."""
    # As many elements for each thread as make 16 bytes of the smallest dtype, or 4.
    smallest = min(DTYPES[code].itemsize for code in (p, g, *state))
    each = 8 if smallest == torch.half.itemsize else 4
    unused = (-1,) * (int(w.OPERANDS) - len(state))
    return (p, g, int(agc), int(clip), each, int(mask), average, *state, *unused)


def kind_of(work: Work, index: int) -> Kind:
    """Of a tensor with a gradient, or of one that is averaged without."""
    entry = work.entries[index]
    group = work.groups[entry.group]
    mask, average = entry.mask is not None, -1
    if entry.average is not None and group.average_every:
        average = CODES[entry.average.flat.dtype]
    p = CODES[entry.p.flat.dtype]
    if work.addresses[index, 1] < 0:
        return kind(p, -1, (), mask=mask, average=average)
    operands = entry.state[: work.rule.operands_used(group)]
    state = [CODES[operand.flat.dtype] for operand in operands if operand is not None]
    g = int(work.addresses[index, 1])
    return kind(p, g, state, bool(group.agc), group.value_clip, mask, average)


def registers_of_measure(kinds: Iterable[Kind]) -> int:
    """The most that a thread may have; 0 leaves it to the compiler.

    What adaptive and value clip need would be spilled.
    """
    clips = any(kind[int(w.KIND_AGC)] or kind[int(w.KIND_CLIP)] for kind in kinds)
    return 0 if clips else REGISTERS
