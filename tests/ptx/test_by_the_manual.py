"""Corners of the machine that readers found wrong: each a small kernel, by the manual."""

import multiprocessing
import os
import struct
import time

import pytest

from ptx import build, machine
from ptx.small_kernels import HEAD, PASSED_ON, SEEDS, START, TURNED, kernel, outcomes


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("s32.f32", 0),
        ("u32.f32", 0),
        ("s64.f32", 1 << 63),
        ("u64.f32", 1 << 63),
        ("s32.f64", 1 << 31),
        ("u32.f64", 1 << 31),
        ("s64.f64", 1 << 63),
        ("u64.f64", 1 << 63),
    ],
)
def test_a_nan_as_an_integer(data, out, form, wanted):
    to, source = form.split(".")
    nan = "0f7FC00000" if source == "f32" else "0d7FF8000000000000"
    body = f".reg .{source} %f; .reg .b{to[1:]} %i; mov.{source} %f, {nan};\n"
    body += f"cvt.rzi.{form} %i, %f;\nst.global.{to} [%out], %i;"
    library = kernel(body)
    library.launch("f", struct.pack("QQ", data.data_ptr(), out.data_ptr()), 1, 1)
    assert int.from_bytes(out.numpy().tobytes()[: int(to[1:]) // 8], "little") == wanted


def test_parameters_passed_under_one_name_have_sizes_of_their_own():
    """As nvcc names them, param0 of every call."""
    from ptx.grammar import parse
    from ptx.translate import translate

    calls = "".join(
        f"{{ .param .align 8 .b8 param0[{size}]; st.param.b32 [param0], %t; "
        "call.uni g, (param0); }\n"
        for size in (64, 4)
    )
    text = f"{HEAD}.func g(.param .align 8 .b8 x[64])\n{{ ret; }}\n"
    text += f".visible .entry f()\n{{ .reg .b32 %t; mov.u32 %t, 0;\n{calls} ret; }}\n"
    assert "char param0[64]" in translate(parse(text)).cpp


def test_entries_that_differ_in_the_places_of_parameters(data, out):
    def entry(name, first):
        return f""".visible .entry {name}(.param .{first} x, .param .u64 where)
{{ .reg .b64 %at; ld.param.u64 %at, [where]; st.global.u32 [%at], 1; ret; }}
"""

    library = machine.load(
        HEAD + entry("f", "u64") + entry("g", "align 16 .b8").replace("x,", "x[16],")
    )
    library.launch("f", struct.pack("QQ", 0, out.data_ptr()), 1, 1)
    library.launch("g", struct.pack("QQQ", 0, data.data_ptr(), out[1:].data_ptr()), 1, 1)
    assert out.tolist()[:2] == [1, 1]


def test_what_a_constant_is_not_given_is_zero(data, out):
    text = f""".const .align 4 .b32 few[4] = {{1, 2}};
.const .align 4 .b32 more[4] = {{7, 7, 7, 7}};
.visible .entry f(.param .u64 data, .param .u64 out)
{{{START}
ld.const.u32 %a, [few+8];
ld.const.u32 %b, [few+12];
or.b32 %a, %a, %b;
st.global.u32 [%out], %a;
ret; }}"""
    library = machine.load(HEAD + text)
    out.fill_(5)
    library.launch("f", struct.pack("QQ", data.data_ptr(), out.data_ptr()), 1, 1)
    assert out[0] == 0


def test_a_lane_may_end_after_a_shuffle(data, out):
    body = "shfl.sync.bfly.b32 %c, %t, 1, 31, -1;\nsetp.ne.u32 %p, %t, 0;\n@%p ret;\n"
    errors, results = outcomes(kernel(body + "st.global.u32 [%out], %c;"), data, out, 1, 32)
    assert not errors and {found[0] for found in results} == {1}


def test_a_shuffle_after_a_block_whose_lane_has_ended(data, out):
    """Blocks follow each other in one place: here even ones end a lane before a shuffle."""
    body = """
and.b32 %a, %block, 1;
setp.ne.u32 %p, %a, 0;
@%p bra ALL;
setp.eq.u32 %p, %t, 5;
@%p ret;
shfl.sync.idx.b32 %c, %t, 0, 31, -1;
ret;
ALL:
shfl.sync.bfly.b32 %c, %t, 1, 31, -1;
mul.lo.u32 %a, %block, 0;
setp.ne.u32 %p, %t, 4;
@%p ret;
mul.wide.u32 %at, %block, 4;
add.s64 %at, %at, %out;
st.global.u32 [%at], %c;
bar.warp.sync -1;
"""
    errors, results = outcomes(kernel(body), data, out, 16, 32)
    assert not errors and results == {tuple(5 * (i % 2) * (i < 16) for i in range(64))}


def test_an_ended_thread_votes_no_more(data, out):
    body = """
setp.ge.u32 %p, %t, 32;
bar.red.or.pred %q, 0, %p;
@%p ret;
bar.red.or.pred %q, 0, %p;
bar.red.or.pred %q, 0, %p;
selp.u32 %a, 1, 0, %q;
add.s64 %at, %out, %own;
st.global.u32 [%at], %a;
"""
    errors, results = outcomes(kernel(body), data, out, 1, 64)
    assert not errors and results == {(0,) * 64}


ELSEWHERE = "atom.global.acq_rel.gpu.add.u32 %c, [%out+{}], 0;"


@pytest.mark.parametrize("fence", [0, 1])
def test_an_ordered_atomic_operation_orders_no_other_ones(data, out, fence):
    """It releases and acquires by its own place; the relaxed flag stays relaxed."""
    parts = PASSED_ON.split("membar.gl;")
    parts.insert(fence + 1, "")
    ways = ["membar.gl;", "membar.gl;"]
    ways[fence] = ELSEWHERE.format(64 + 64 * fence)
    text = parts[0] + ways[0] + PASSED_ON.split("membar.gl;")[1] + ways[1] + parts[-1]
    errors, _ = outcomes(kernel(text), data, out, 2)
    assert any("a race with the store" in error for error in errors)


def test_an_ordered_atomic_operation_orders_its_own_place(data, out):
    text = PASSED_ON.replace("membar.gl;", "").replace(
        "atom.global.or.b32", "atom.global.acq_rel.gpu.add.u32"
    )
    errors, results = outcomes(kernel(text), data, out, 2)
    assert not errors and {found[0] for found in results} == {0, 8}


# Blocks 0 and 1 add to one place. The second to do so, if it is block 1, tells block 2, which loads
# it: of the other's addition block 2 was not told.
HIDDEN = """
setp.eq.u32 %p, %block, 2;
@%p bra READER;
setp.eq.u32 %p, %block, 1;
@%p bra SECOND;
atom.global.add.u32 %a, [%data], 1;
ret;
SECOND:
atom.global.add.u32 %b, [%data], 1;
setp.ne.u32 %p, %b, 1;
@%p ret;
membar.gl;
atom.global.or.b32 %a, [%flag], 1;
ret;
READER:
atom.global.or.b32 %a, [%flag], 0;
membar.gl;
setp.eq.u32 %p, %a, 0;
@%p ret;
ld.global.u32 %b, [%data];
"""


def test_an_atomic_operation_hides_none_that_it_does_not_know(data, out):
    errors, _ = outcomes(kernel(HIDDEN), data, out, 3)
    assert any("a race with the store" in error and "of block 0)" in error for error in errors)


@pytest.mark.parametrize("place", ["shared.add.u32 %a, [room]", "global.add.u32 %a, [%data]"])
def test_an_atomic_operation_reads(data, out, place):
    errors, _ = outcomes(kernel(f"atom.{place}, 1;", 64), data, out, fresh=[data])
    assert len(errors) == len(SEEDS) and all("nobody has written" in error for error in errors)


# Every lane's row is the same one, of four numbers that the first lanes have stored.
MATRIX = {
    "ldmatrix": "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%m0, %m1, %m2, %m3}, [%row];",
    "stmatrix": "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%own_row], {%t, %t, %t, %t};",
}


@pytest.mark.parametrize("words", ["", "bar.warp.sync -1;"])
@pytest.mark.parametrize("name", MATRIX)
def test_matrices_order_no_memory(data, out, name, words):
    start = """.reg .b32 %m<4>, %row, %own_row;
mov.u32 %row, room;
add.u32 %row, %row, 256;
shl.b32 %own_row, %t, 4;
add.u32 %own_row, %own_row, %row;
shl.b32 %a, %t, 2;
add.u32 %a, %a, %row;
st.shared.u32 [%a], %t;
bar.warp.sync -1;
"""
    text = start + TURNED.replace("bar.sync 0;", MATRIX[name] + words).replace("128", "4")
    errors, _ = outcomes(kernel(text, 1024), data, out, 1, 32)
    assert bool(errors) != bool(words)


def test_a_barrier_tells_nothing_of_those_that_have_ended(data, out):
    body = """
setp.ge.u32 %p, %t, 32;
@%p bra LATER;
st.global.u32 [%data], %t;
ret;
LATER:
bar.sync 0;
setp.ne.u32 %p, %t, 32;
@%p ret;
ld.global.u32 %a, [%data];
"""
    library = kernel(
        body.replace("[%data], %t", "[%at], %t").replace(
            "setp.ge", "add.s64 %at, %data, %own;\nsetp.ge"
        )
    )
    errors, _ = outcomes(library, data, out, 1, 64)
    assert any("a race" in error for error in errors)


DIVIDED = """
setp.eq.u32 %p, %t, 0;
@%p bra OTHER;
bar.sync 0;
ret;
OTHER:
{};
"""


def test_a_warp_is_at_one_barrier(data, out):
    errors, _ = outcomes(kernel(DIVIDED.format("bar.sync 0")), data, out, 1, 32)
    assert errors


def test_a_vote_meets_no_other_barrier(data, out):
    text = DIVIDED.format("bar.red.or.pred %q, 0, %p").replace(
        "eq.u32 %p, %t, 0", "lt.u32 %p, %t, 32"
    )
    errors, _ = outcomes(kernel(text), data, out, 1, 64)
    assert errors


def test_a_third_grid_is_another_one(data, out):
    first = kernel("griddepcontrol.launch_dependents;")
    second = kernel(
        "griddepcontrol.launch_dependents;\ngriddepcontrol.wait;\nst.global.u32 [%data], 3;"
    )
    third = kernel("griddepcontrol.wait;\nld.global.u32 %a, [%data];\nst.global.u32 [%out], %a;")
    pointers = struct.pack("QQ", data.data_ptr(), out.data_ptr())
    results = set()
    for seed in SEEDS:
        data.zero_()
        machine.seed(seed)
        with machine.checked():
            machine.allocations([data, out])
            for library in (first, second, third):
                library.add("f", pointers, 1, 1)
            machine.run()  # no race: the third waits for all of the second
            results.add(int(out[0]))
    assert results == {3}


def test_cleaning_leaves_what_is_being_made(tmp_path, monkeypatch):
    """Another process cleans while this one holds the lock of an old folder."""
    monkeypatch.setattr(build, "CACHE", tmp_path)
    build.kept("old", "file", lambda folder: (folder / "file").touch())
    long_ago = time.time() - 2 * build.WEEK
    os.utime(tmp_path / "old", (long_ago, long_ago))
    with build._locked(tmp_path / "old"):
        cleaning = multiprocessing.get_context("fork").Process(target=build._clean)
        cleaning.start()
        cleaning.join(20)
        assert not cleaning.is_alive() and (tmp_path / "old" / "file").exists()
    os.utime(tmp_path / "old", (long_ago, long_ago))
    build._clean()
    assert not (tmp_path / "old").exists()
