# mypy: ignore-errors
"""Memory of the four dtypes, read to and written from the compute type (float64 or float32).

bfloat16 travels as integers and is rounded by integer operations: to nearest, ties to even, the
same on every chip and in the interpreter.
"""

import triton
import triton.language as tl

from lrfused.backends.triton import mode
from lrfused.backends.triton.words import BFLOAT16, FLOAT32, FLOAT64

# The interpreter truncates where every GPU rounds to nearest, ties to even.
INTERPRETED = tl.constexpr(mode.INTERPRETED)
NAN_BITS = tl.constexpr(0x7FF8000000000000)


@triton.jit
def element_size(DTYPE: tl.constexpr):
    """In bytes."""
    size: tl.constexpr = 8 if DTYPE == FLOAT64 else (4 if DTYPE == FLOAT32 else 2)
    return size


@triton.jit
def pointer(address, DTYPE: tl.constexpr, ALIGNED: tl.constexpr = False):
    """A typed pointer; bfloat16 as its bits. An ALIGNED one is a multiple of 16 bytes.

    (The hint is lost on what another function returns: it has to stand here.)
    """
    if DTYPE == FLOAT64:
        typed = address.to(tl.pointer_type(tl.float64))
    elif DTYPE == FLOAT32:
        typed = address.to(tl.pointer_type(tl.float32))
    elif DTYPE == BFLOAT16:
        typed = address.to(tl.pointer_type(tl.uint16))
    else:
        typed = address.to(tl.pointer_type(tl.float16))
    if ALIGNED:
        typed = tl.multiple_of(typed, 16)
    return typed


@triton.jit
def widen(x, DTYPE: tl.constexpr, DOUBLE: tl.constexpr):
    """What was read, in the compute type."""
    if DTYPE == BFLOAT16:
        x = (x.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    return x.to(tl.float64 if DOUBLE else tl.float32)


@triton.jit
def narrow(x, DTYPE: tl.constexpr):
    """The compute type rounded to what is written: to 16 bits by way of float32, as torch does."""
    if DTYPE == FLOAT64:
        result = x.to(tl.float64)
    elif DTYPE == FLOAT32:
        result = x.to(tl.float32)
    elif DTYPE == BFLOAT16:
        rounded = x.to(tl.float32)
        if INTERPRETED:
            bits = rounded.to(tl.uint32, bitcast=True)
            bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            result = tl.where(rounded != rounded, 0x7FC0, bits).to(tl.uint16)
        else:
            result = rounded.to(tl.bfloat16).to(tl.uint16, bitcast=True)
    else:
        result = x.to(tl.float32).to(tl.float16)
    return result


@triton.jit
def read(start, offsets, present, DTYPE: tl.constexpr, DOUBLE: tl.constexpr):
    """Elements in the compute type; without a mask (None) all of them, else zeros elsewhere."""
    if present is None:
        x = tl.load(start + offsets)
    else:
        x = tl.load(start + offsets, mask=present, other=0)
    return widen(x, DTYPE, DOUBLE)


@triton.jit
def read_pairs(start, offsets, DTYPE: tl.constexpr):
    """Pairs of 16 bits in float32, side by side, read as words: to take them apart costs less."""
    words = tl.load(start.to(tl.pointer_type(tl.uint32)) + offsets)
    if DTYPE == BFLOAT16:
        even = (words << 16).to(tl.float32, bitcast=True)
        odd = (words & 0xFFFF0000).to(tl.float32, bitcast=True)
    else:
        even = (words & 0xFFFF).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)
        odd = (words >> 16).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)
    return tl.reshape(tl.join(even, odd), (2 * offsets.shape[0],))


@triton.jit
def write(start, offsets, present, x, DTYPE: tl.constexpr):
    """The counterpart of ``read``."""
    tl.store(start + offsets, narrow(x, DTYPE), mask=present)


@triton.jit
def as_bits(x):
    """The bits of a float64, as the words of the state hold them."""
    return x.to(tl.int64, bitcast=True)


@triton.jit
def from_bits(x):
    """The float64 of a word."""
    return x.to(tl.float64, bitcast=True)
