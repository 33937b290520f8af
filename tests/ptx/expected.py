"""What instructions of PTX do to values, in Python's integers and fractions: the other side of the
tests of opcodes.py, which shares nothing with values.h.

Integers are exact and then cut to their width; floating-point operations are exact fractions (roots
60 digits more than enough) that are rounded once, to nearest even, here.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath

from ptx.formats import NAN, decoded, encoded, is_float, width


def arithmetic(exact: Callable[..., Fraction], special: Callable[..., Any]) -> Callable[..., Any]:
    """An operation on numbers, and what it gives where one is a nan, infinite, or all are zeros."""

    def operation(*values: float) -> Any:
        found = special(*values)
        return exact(*map(Fraction, values)) if found is None else found

    return operation


def _ieee(f: Callable[..., float]) -> Callable[..., Any]:
    """Python's own float64, of arguments for which the result is exact: zeros and infinities."""

    def special(*values: float) -> Any:
        if any(map(math.isnan, values)):
            return NAN
        if all(map(math.isfinite, values)) and any(values):
            return None
        try:
            return f(*values)
        except (ZeroDivisionError, ValueError):
            return NAN

    return special


def _sum(a: float, b: float) -> Any:
    return arithmetic(lambda x, y: x + y, _ieee(lambda x, y: x + y))(a, b)


def _sum_of(a: float, b: float) -> Any:
    """An exact zero of two numbers is +0, unless both are -0."""
    found = _sum(a, b)
    return 0.0 if isinstance(found, Fraction) and not found else found


def _product(a: float, b: float) -> Any:
    found = arithmetic(lambda x, y: x * y, _ieee(lambda x, y: x * y))(a, b)
    return signed(found, (a < 0) != (b < 0) if a and b else sign(a) != sign(b))


def _quotient(a: float, b: float) -> Any:
    if math.isnan(a) or math.isnan(b) or (not a and not b) or (math.isinf(a) and math.isinf(b)):
        return NAN
    negative = sign(a) != sign(b)
    if math.isinf(a) or not b:
        return -math.inf if negative else math.inf
    if math.isinf(b) or not a:
        return -0.0 if negative else 0.0
    return Fraction(a) / Fraction(b)


def _fused(a: float, b: float, c: float) -> Any:
    if all(map(math.isfinite, (a, b, c))):
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        if exact:
            return exact
        return -0.0 if sign(c) and (sign(a) != sign(b)) and not (a and b) else 0.0
    return a * b + c


def _root(a: float) -> Any:
    if math.isnan(a) or a < 0:
        return NAN
    if not a or math.isinf(a):
        return a
    with mpmath.workdps(400):
        man, exp = mpmath.sqrt(mpmath.mpf(a)).man_exp
        return Fraction(int(man)) * Fraction(2) ** int(exp)


def sign(x: float) -> bool:
    return math.copysign(1, x) < 0


def signed(value: Any, negative: bool) -> Any:
    """A zero, or what rounds to one, keeps the sign of the operation."""
    if isinstance(value, Fraction) and not value:
        return -0.0 if negative else 0.0
    return value


def _least(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return min(a, b, key=lambda x: (x, not sign(x)))


def _most(a: float, b: float) -> float:
    return -_least(-a, -b)


ROUNDED = {"rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil, "rni": round}


def _to_integer(a: float, mode: str, kind: str, source: str) -> Any:
    if is_float(kind):
        return math.copysign(float(ROUNDED[mode](a)), a) if math.isfinite(a) else a
    low, high = (-(2 ** (width(kind) - 1)), 2 ** (width(kind) - 1) - 1)
    if kind[0] == "u":
        low, high = 0, 2 ** width(kind) - 1
    if math.isnan(a):
        return 2 ** (width(kind) - 1) if "64" in kind + source else 0
    return (
        low if a == -math.inf else high if a == math.inf else min(max(ROUNDED[mode](a), low), high)
    )


def _bit_field(a: int, place: int, length: int, kind: str) -> int:
    place, length = place & 255, length & 255
    bits = a % 2 ** width(kind)
    top = width(kind) - 1
    if not length:
        return 0
    found = bits >> place & (2**length - 1)
    last = min(place + length - 1, top)
    inside = max(0, min(length, top + 1 - place))
    if kind[0] == "s" and bits >> last & 1:
        found |= -1 << inside
    return found


def _inserted(a: int, b: int, place: int, length: int, kind: str) -> int:
    mask = ((1 << (length & 255)) - 1) << (place & 255)
    return (b & ~mask) | (a << (place & 255) & mask)


def _permuted(a: int, b: int, choice: int) -> int:
    data = (b << 32 | a).to_bytes(8, "little")
    result = []
    for i in range(4):
        selector = choice >> (4 * i) & 15
        byte = data[selector & 7]
        result.append((255 if byte >> 7 else 0) if selector & 8 else byte)
    return int.from_bytes(bytes(result), "little")


def _halves(f: Callable[[float, float], Any]) -> Callable[[int, int], int]:
    """On each half of 64 bits."""

    def both(a: int, b: int) -> int:
        parts = [
            (decoded(a >> s & 0xFFFFFFFF, "f32"), decoded(b >> s & 0xFFFFFFFF, "f32"))
            for s in (0, 32)
        ]
        low, high = (encoded(f(x, y), "f32") for x, y in parts)
        return high << 32 | low

    return both


def _magnitudes(a: int) -> int:
    """Of two float16 numbers; the manual leaves open which nan a nan becomes."""
    numbers = [decoded(a >> s & 0xFFFF, "f16") for s in (0, 16)]
    kept = (a >> s & 0x7FFF for s in (0, 16))
    low, high = (
        nan if math.isnan(x) else encoded(abs(x), "f16")
        for x, nan in zip(numbers, kept, strict=True)
    )
    return high << 16 | low


def _truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


COMPARED = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def compared(name: str, a: Any, b: Any) -> bool:
    """Of setp: a nan makes what ends with u true and the rest false."""
    unordered = a != a or b != b
    if name in ("num", "nan"):
        return unordered == (name == "nan")
    if name.endswith("u"):
        return unordered or COMPARED[name[:-1]](a, b)
    return not unordered and COMPARED[name](a, b)


PLAIN: dict[str, Callable[..., Any]] = {
    "mul.lo": lambda a, b: a * b,
    "mul.wide": lambda a, b: a * b,
    "mad.lo": lambda a, b, c: a * b + c,
    "mad.wide": lambda a, b, c: a * b + c,
    "div": _truncated,
    "rem": lambda a, b: a - b * _truncated(a, b),
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shf.r.wrap": lambda a, b, c: (b << 32 | a) >> (c & 31),
    "shf.l.wrap": lambda a, b, c: (b << 32 | a) << (c & 31) >> 32,
    "prmt": _permuted,
    "popc": lambda a: bin(a).count("1"),
    "abs.f16x2": _magnitudes,
    "selp": lambda a, b, c: a if c else b,
    "mov": lambda a: a,
}
FLOATING: dict[str, Callable[..., Any]] = {
    "add.rn": _sum_of,
    "sub.rn": lambda a, b: _sum_of(a, -b),
    "mul.rn": _product,
    "fma.rn": _fused,
    "div.rn": _quotient,
    "rcp.rn": lambda a: _quotient(1.0, a),
    "sqrt.rn": _root,
    "min": _least,
    "max": _most,
    "neg": lambda a: -a,
    "abs": abs,
}
INTEGER: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "min": min,
    "max": max,
    "neg": lambda a: -a,
    "abs": abs,
}


def operation(form: str) -> Callable[..., Any]:
    """Of values, by the form's name."""
    stem, _, kind = form.rpartition(".")
    name = stem.split(".")[0]
    if name == "setp":
        return lambda a, b: compared(stem.split(".")[1], a, b)
    if name == "cvt":
        return conversion(*form.split(".")[1:])
    if form in PLAIN:
        return PLAIN[form]
    if kind == "f32x2":
        return _halves(FLOATING[stem])
    if name == "mul" and "hi" in stem:
        return lambda a, b: a * b >> width(kind)
    if name == "not":
        return lambda a: not a if kind == "pred" else ~a
    if name in ("shl", "shr"):
        return lambda a, b: a << min(b, 64) if name == "shl" else a >> min(b, 64)
    if name in ("bfe", "bfi"):
        return lambda *given: (_bit_field if name == "bfe" else _inserted)(*given, kind)
    if is_float(kind) and stem in FLOATING:
        return FLOATING[stem]
    return PLAIN[stem] if stem in PLAIN else INTEGER[stem]


def conversion(*kinds: str) -> Callable[..., Any]:
    """Of cvt, by its modifiers."""
    if kinds[0] in ROUNDED:
        return lambda a: _to_integer(a, *kinds)
    if kinds[-2].endswith("x2"):
        half = kinds[-2].removesuffix("x2")
        return lambda a, b: encoded(a, half) << 16 | encoded(b, half)
    if kinds[-2] in ("f16", "bf16"):
        return lambda a: encoded(a, kinds[-2])
    if kinds[-1] in ("f16", "bf16"):
        return lambda a: decoded(a, kinds[-1])
    if is_float(kinds[-2]) and not is_float(kinds[-1]):
        return Fraction
    return lambda a: a
