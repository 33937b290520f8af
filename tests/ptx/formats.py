"""Values as patterns of bits, by the names of PTX's types: rounded once, to nearest even."""

import math
import struct
from fractions import Fraction
from typing import Any

# Bits of a fraction, exponent of the largest number's binade, smallest exponent.
FORMATS = {"f16": (10, 15, -14), "bf16": (7, 127, -126), "f32": (23, 127, -126)}
FORMATS["f64"] = (52, 1023, -1022)
CODES = {"f16": "e", "f32": "f", "f64": "d"}
NAN = float("nan")


def width(kind: str) -> int:
    """Bits of a type."""
    return 1 if kind == "pred" else int(kind.lstrip("bsuf"))


def is_float(kind: str) -> bool:
    return kind[0] == "f" or kind == "bf16"


def decoded(bits: int, kind: str) -> Any:
    """A pattern as a value of a type."""
    if kind == "pred":
        return bool(bits)
    if kind == "bf16":
        return struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    if is_float(kind):
        return struct.unpack(f"<{CODES[kind]}", bits.to_bytes(width(kind) // 8, "little"))[0]
    if kind[0] == "s" and bits >> (width(kind) - 1):
        return bits - 2 ** width(kind)
    return bits


def encoded(value: Any, kind: str) -> int:
    """A value as a pattern; an integer is cut, a number rounded."""
    if kind == "pred" or not is_float(kind):
        return int(value) % 2 ** width(kind)
    fraction, largest, smallest = FORMATS[kind]
    bias = largest
    infinity = (2 * bias + 1) << fraction
    sign = 0
    if isinstance(value, float):
        sign = int(math.copysign(1, value) < 0)
        if math.isnan(value):
            return NANS[kind]
        if math.isinf(value):
            return sign << (width_of(kind) - 1) | infinity
        value = Fraction(value)
    else:
        sign = int(value < 0)
    size = abs(value)
    exponent = smallest
    while size >= Fraction(2) ** (exponent + 1) and exponent <= largest:
        exponent += 1
    count = nearest_even(size / Fraction(2) ** (exponent - fraction))
    pattern = ((exponent + bias - 1) << fraction) + count
    return sign << (width_of(kind) - 1) | min(pattern, infinity)


def width_of(kind: str) -> int:
    return 16 if kind == "bf16" else width(kind)


NANS = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF, "f64": 0x7FF8 << 48}


def nearest_even(x: Fraction) -> int:
    return round(x)  # Python's, of a fraction
