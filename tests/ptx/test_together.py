"""What threads do together: atomic operations, shuffles, reductions, matrices, by hand."""

import itertools
import struct

import numpy as np
import pytest
import torch

from ptx.small_kernels import kernel

LANES = 32


def launched(body, data, out, threads=LANES, shared=0):
    """The results as 64 integers without a sign."""
    pointers = struct.pack("QQ", data.data_ptr(), out.data_ptr())
    kernel(body, shared).launch("f", pointers, 1, threads)
    return out.numpy().view(np.uint32).tolist()


# What is left of a number in memory, and an argument.
ATOMIC = {
    "add.u32": lambda old, a: (old + a) % 2**32,
    "add.s32": lambda old, a: (old + a) % 2**32,
    "inc.u32": lambda old, a: 0 if old >= a else old + 1,
    "or.b32": lambda old, a: old | a,
    "min.u32": min,
    "max.u32": max,
    "min.s32": lambda old, a: min(old, a, key=lambda x: (x + 2**31) % 2**32),
    "max.s32": lambda old, a: max(old, a, key=lambda x: (x + 2**31) % 2**32),
}
NUMBERS = [0, 1, 5, 6, 2**31 - 1, 2**31, 2**32 - 1]


@pytest.mark.parametrize("place", ["global", "shared"])
@pytest.mark.parametrize("name", ATOMIC)
def test_an_atomic_operation(data, out, name, place):
    """It returns what was there, and leaves its result."""
    at, shared = ("%data+8", 0) if place == "global" else ("room", 4)
    body = f"""
ld.global.u32 %a, [%data];
ld.global.u32 %b, [%data+4];
st.{place}.u32 [{at}], %a;
atom.{place}.{name} %c, [{at}], %b;
ld.{place}.u32 %a, [{at}];
st.global.u32 [%out], %c;
st.global.u32 [%out+4], %a;
"""
    for old, given in itertools.product(NUMBERS, repeat=2):
        data.numpy().view(np.uint32)[:2] = old, given
        found = launched(body, data, out, 1, shared)[:2]
        assert found == [old, ATOMIC[name](old, given)], (old, given)


# The lane from which one of 32 takes, by the manual's pseudo-code; its own where that is outside.
def from_lane(how, lane, given, limits):
    segment, clamp = limits >> 8 & 31, limits & 31
    last = (lane & segment) | (clamp & ~segment & 31)
    first = lane & segment
    other = lane ^ given if how == "bfly" else first | (given & ~segment & 31)
    return (other, 1) if other <= last else (lane, 0)


SHUFFLED = """
.reg .b32 %r;
ld.global.u32 %b, [%data];
ld.global.u32 %c, [%data+4];
mul.lo.u32 %a, %t, 3;
shfl.sync.{}.b32 %r|%p, %a, %b, %c, -1;
selp.u32 %a, 1000, 0, %p;
add.u32 %r, %r, %a;
add.s64 %at, %out, %own;
st.global.u32 [%at], %r;
"""


@pytest.mark.parametrize("how", ["bfly", "idx"])
def test_a_shuffle(data, out, how):
    for given, limits in itertools.product([0, 1, 5, 16, 31], [31, 0x1C1F, 0x181F, 15, 0x1003]):
        data[0], data[1] = given, limits
        found = launched(SHUFFLED.format(how), data, out)[:LANES]
        wanted = [from_lane(how, lane, given, limits) for lane in range(LANES)]
        assert found == [3 * other + 1000 * inside for other, inside in wanted], (given, limits)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("add.s32", lambda x: sum(x)),
        ("add.u32", lambda x: sum(x)),
        ("max.u32", max),
        ("min.u32", min),
        ("max.s32", lambda x: max(x, key=lambda y: (y + 2**31) % 2**32)),
        ("min.s32", lambda x: min(x, key=lambda y: (y + 2**31) % 2**32)),
    ],
)
def test_a_reduction_of_a_warp(data, out, name, of):
    values = [(lane * 2654435761 + 7) % 2**32 for lane in range(LANES)]
    data[:LANES] = torch.from_numpy(np.array(values, dtype=np.uint32).view(np.int32).copy())
    body = f"add.s64 %at, %data, %own;\nld.global.u32 %a, [%at];\nredux.sync.{name} %b, %a, -1;\n"
    body += "add.s64 %at, %out, %own;\nst.global.u32 [%at], %b;"
    assert launched(body, data, out)[:LANES] == [of(values) % 2**32] * LANES


def matrices(name, body):
    """Four of 8 x 8 numbers of 16 bits, 64 i + 8 row + column, between memory and registers."""
    regs = "{%m0, %m1, %m2, %m3}"
    operands = f"{regs}, [%a]" if name.startswith("ld") else f"[%a], {regs}"
    declared = ".reg .b32 %m0, %m1, %m2, %m3; .reg .b16 %h;\n"
    return declared + body.format(f"{name} {operands};")


# A row of 16 bytes for each lane, in the order of the lanes.
FILLED = """
shl.b32 %a, %t, 4;
mul.lo.u32 %b, %t, 8;
""" + "".join(
    f"add.u32 %c, %b, {i};\ncvt.u16.u32 %h, %c;\n"
    f"add.u32 %c, %a, {2 * i};\nst.shared.u16 [%c], %h;\n"
    for i in range(8)
)
SHOWN = """
bar.sync 0;
{}
mul.wide.u32 %at, %t, 16;
add.s64 %at, %out, %at;
st.global.v4.u32 [%at], {{%m0, %m1, %m2, %m3}};
"""


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_loaded(data, transposed):
    out = torch.zeros(4 * LANES, dtype=torch.int32)
    name = f"ldmatrix.sync.aligned.m8n8.x4{'.trans' if transposed else ''}.shared.b16"
    found = np.array(launched(matrices(name, FILLED + SHOWN), data, out, shared=512), np.uint32)
    held = found.reshape(LANES, 4).view(np.uint16).reshape(LANES, 4, 2)
    for lane, matrix, which in np.ndindex(held.shape):
        row, column = lane // 4, lane % 4 * 2 + which
        if transposed:
            row, column = column, row
        assert held[lane, matrix, which] == 64 * matrix + 8 * row + column


def test_matrices_are_stored(data):
    """Each lane's register i holds 4 lane + i, twice: where that is found tells who stored it."""
    out = torch.zeros(4 * LANES, dtype=torch.int32)
    body = "shl.b32 %a, %t, 4;\nshl.b32 %b, %t, 2;\n"
    for i in range(4):
        body += f"add.u32 %c, %b, {i};\nmul.lo.u32 %m{i}, %c, 65537;\n"
    body += "{}\nbar.sync 0;\nld.shared.v4.u32 {{%m0, %m1, %m2, %m3}}, [%a];\n"
    body += "mul.wide.u32 %at, %t, 16;\nadd.s64 %at, %out, %at;\n"
    body += "st.global.v4.u32 [%at], {{%m0, %m1, %m2, %m3}};"
    name = "stmatrix.sync.aligned.m8n8.x4.shared.b16"
    found = np.array(launched(matrices(name, body), data, out, shared=512), np.uint32)
    rows = found.view(np.uint16).reshape(4, 8, 8)
    for matrix, row, column in np.ndindex(rows.shape):
        assert rows[matrix, row, column] == 4 * (4 * row + column // 2) + matrix
