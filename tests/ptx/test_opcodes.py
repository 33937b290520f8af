"""Each instruction form, run from PTX, against expected.py at the edges and on random values."""

import ctypes
import math
import struct

import numpy as np
import pytest

from ptx import expected, machine, opcodes
from ptx.formats import decoded, encoded, is_float, width

CASES = 96  # threads of a block, each with values of its own
SLOT = 32  # bytes of a thread's arguments
EDGES = {
    "f32": [
        0.0,
        -0.0,
        1.0,
        -1.5,
        2.0**-149,
        -(2.0**-126),
        3.4028234663852886e38,
        math.inf,
        -math.inf,
    ]
    + [math.nan, 16777217.0, 0.1, 65520.0, 65519.99, 2.0**-24, 2.0**-25, 3.0 * 2.0**-26, 2.5, -2.5]
    + [2.0**31, -(2.0**31), 2.0**63, 2.0**64, 3.3895313892515355e38, 1.00390625, 1.01171875],
    "f64": [
        0.0,
        -0.0,
        1.0,
        -1.5,
        5e-324,
        -2.2250738585072014e-308,
        1.7976931348623157e308,
        math.inf,
    ]
    + [-math.inf, math.nan, 2.0**53 + 2, 0.1, 3.4028235677973366e38, 2.0**-150, 0.5, 1.5, -2.5]
    + [2.0**63, -(2.0**63), 2.0**31 - 0.5, 65520.0, 65519.999, 1.0009765625, 1.00048828125],
}
# Forms whose result is undefined by some arguments, which are told apart here.
NO_RESULT = ("div", "rem")


def holder(kind: str) -> str:
    """The register that has a type's bits; of fewer than 16 there is none."""
    if kind in ("f32", "f64", "pred"):
        return kind
    return f"b{max(16, width(kind))}"


def entry(form: str, row: opcodes.Row) -> str:
    """A kernel in which each thread executes the form once."""
    kinds = [*row.arguments, row.result]
    lines = [f".reg .{holder(kind)} %x{i};" for i, kind in enumerate(kinds)]
    for i, kind in enumerate(row.arguments):
        if kind == "pred":
            lines += [f"ld.global.u32 %t, [%in+{8 * i}];", f"setp.ne.u32 %x{i}, %t, 0;"]
        else:
            lines.append(f"ld.global.{stored(kind)} %x{i}, [%in+{8 * i}];")
    result = len(row.arguments)
    lines.append(f"{form} {', '.join(f'%x{i}' for i in (result, *range(result)))};")
    if row.result == "pred":
        lines += [f"selp.u32 %t, 1, 0, %x{result};", "st.global.u32 [%out], %t;"]
    else:
        lines.append(f"st.global.{stored(row.result)} [%out], %x{result};")
    body = "\n".join(lines)
    return f"""
.visible .entry {name_of(form)}(.param .u64 given, .param .u64 wanted)
{{
.reg .b32 %t; .reg .b64 %in, %out, %at;
mov.u32 %t, %tid.x;
mul.wide.u32 %at, %t, {SLOT};
ld.param.u64 %in, [given];
add.s64 %in, %in, %at;
mul.wide.u32 %at, %t, 8;
ld.param.u64 %out, [wanted];
add.s64 %out, %out, %at;
{body}
ret;
}}
"""


def stored(kind: str) -> str:
    return kind if kind in ("f32", "f64") else f"u{width(kind)}"


def name_of(form: str) -> str:
    return "run_" + form.replace(".", "_")


BY_TABLE = {
    form: row
    for form, row in opcodes.TABLE.items()
    if form.split(".")[0] not in ("atom", "redux", "cvta")
}


@pytest.fixture(scope="module")
def library():
    header = ".version 8.7\n.target sm_90\n.address_size 64\n"
    return machine.load(header + "".join(entry(form, row) for form, row in BY_TABLE.items()))


def patterns(kind: str, rng: np.random.Generator, shift: int) -> list[int]:
    """Bits of a type: edges from a place on, then random ones."""
    bits = width(kind)
    random = [int(x) % 2**bits for x in rng.integers(0, 2**64, CASES, dtype=np.uint64)]
    if is_float(kind):
        sizes = rng.normal(size=CASES) * 2.0 ** rng.integers(-20, 20, CASES)
        random[::2] = [encoded(float(np.float32(x)), kind) for x in sizes[::2]]
        edges = [encoded(x, kind) for x in EDGES[kind]]
    elif kind == "pred":
        return random
    else:
        top = 2 ** (bits - 1)
        edges = [0, 1, top - 1, top, 2 * top - 1, 31, 32, 33, 63, 64, bits - 1, bits, 255, 5]
        edges = [x % 2**bits for x in edges]
    edges = edges[shift % len(edges) :] + edges[: shift % len(edges)]
    return [*edges, *random][:CASES]


def arguments(form: str, row: opcodes.Row, rng: np.random.Generator) -> list[tuple[int, ...]]:
    columns = [patterns(kind, rng, 5 * i) for i, kind in enumerate(row.arguments)]
    cases = list(zip(*columns, strict=True))
    if form.split(".")[0] in NO_RESULT and not is_float(row.kind):
        cases = [(a, b if has_result(a, b, row.kind) else 7) for a, b in cases]
    return cases


def has_result(a: int, b: int, kind: str) -> bool:
    overflows = kind[0] == "s" and a == 2 ** (width(kind) - 1) and b == 2 ** width(kind) - 1
    return b != 0 and not overflows


@pytest.mark.parametrize("form", BY_TABLE)
def test_a_form(library, rng, form):
    row = BY_TABLE[form]
    cases = arguments(form, row, rng.numpy)
    given = b"".join(
        b"".join(x.to_bytes(8, "little") for x in case).ljust(SLOT, b"\0") for case in cases
    )
    inputs = ctypes.create_string_buffer(given, len(given) + 16)
    results = ctypes.create_string_buffer(b"\xa5" * 8 * CASES, 8 * CASES)
    parameters = struct.pack("QQ", ctypes.addressof(inputs), ctypes.addressof(results))
    library.launch(name_of(form), parameters, 1, CASES)
    operation = expected.operation(form)
    size = 4 if row.result == "pred" else width(row.result) // 8
    for i, case in enumerate(cases):
        values = [decoded(x, kind) for x, kind in zip(case, row.arguments, strict=True)]
        wanted = encoded(operation(*values), row.result)
        found = int.from_bytes(results.raw[8 * i : 8 * i + size], "little")
        assert same(found, wanted, row.result, form), (form, values, hex(found), hex(wanted))


def same(found: int, wanted: int, kind: str, form: str) -> bool:
    """Bit for bit, but for nan where the manual promises no pattern."""
    if is_float(kind) and form.split(".")[0] not in ("selp", "mov"):
        x, y = decoded(found, kind), decoded(wanted, kind)
        if x != x or y != y:
            return x != x and y != y and (kind == "f64" or keeps_nan(form) or found == wanted)
    if is_float(kind) and decoded(found, kind) != decoded(found, kind):
        return decoded(wanted, kind) != decoded(wanted, kind)
    return found == wanted


def keeps_nan(form: str) -> bool:
    return form.split(".")[0] in ("neg", "abs", "cvt", "min", "max")


@pytest.mark.parametrize(
    "form", ["add.f32", "fma.rz.f32", "mul.f32x2", "ld.weak.b32", "bar.arrive"]
)
def test_unknown_forms_are_errors_that_name_them(form):
    body = f".reg .f32 %a;\n{form} %a, %a, %a;"
    text = f".version 8.7\n.target sm_90\n.visible .entry f()\n{{\n{body}\n}}"
    with pytest.raises(ValueError, match=rf"line 6.*{form.rpartition('.')[0]}"):
        machine.load(text)
