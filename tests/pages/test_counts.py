"""docs/counts.md is what the built module says, and what it says was counted right."""

import sys
from pathlib import Path

import counts
import pytest
from counted import chain, flight, flow, kernels, plan_model
from counted.chips import CHIPS, resident
from lib.machine_code import loops_of
from ptx.grammar import parse

sys.path.insert(0, str(Path(__file__).parents[2] / "csrc"))
import build_cuda

pytest.importorskip("triton")  # its wheel has the disassembler
MODULE = kernels.module()
built = pytest.mark.skipif(MODULE is None, reason="lrfused._cuda was not built")
REACHES_THE_GRADIENT = """
.version 9.0
.target sm_90
.address_size 64
.shared .align 8 .b8 tile[16];
.visible .entry f(.param .u64 f_param_0) {
    .reg .pred %p<3>;
    .reg .b32 %r<3>;
    .reg .b64 %rd<9>;
    ld.param.u64 %rd1, [f_param_0];
    ld.global.u32 %r1, [%rd1];
    setp.eq.s32 %p1, %r1, 0;
    @%p1 bra READ;
    bra.uni FILL;
READ:
    bar.sync 0;
    ld.shared.u64 %rd5, [tile+8];
    ld.global.v4.u32 {%r1, %r2, %r1, %r2}, [%rd5+16];
    ret;
FILL:
    ld.global.u64 %rd2, [%rd1+8];
    ld.global.u64 %rd3, [%rd2];
    mov.u64 %rd6, tile;
    add.s64 %rd7, %rd6, 8;
    st.shared.u64 [%rd7], %rd3;
    ld.global.u64 %rd8, [%rd3];
    st.shared.u64 [tile], %rd8;
    bra.uni READ;
}
"""
LOOP = """
/*0000*/ LDG.E.128 R4, desc[UR4][R2.64] ;
/*0010*/ @!P0 LDG.E.U16 R8, desc[UR4][R2.64+0x10] ;
/*0020*/ LDG.E.ENL2.256 R16, R12, desc[UR4][R2.64+0x20] ;
/*0030*/ @P1 BRA 0x50 ;
/*0040*/ DADD R30, R30, R32 ;
/*0050*/ FADD R40, R13, R41 ;
/*0060*/ LDG.E R22, desc[UR4][R2.64] ;
/*0070*/ @P0 BRA 0x0 ;
"""


@built
def test_the_page_is_what_the_generator_gives():
    said = counts.PAGE.read_text(encoding="utf-8")
    if kernels.compiler(MODULE) not in said:
        pytest.skip("the page is of another compiler")
    if {k.function.architecture for k in kernels.kernels(MODULE)} != CHIPS.keys():
        pytest.skip("built for other chips")
    try:
        build_cuda.find_nvcc()
    except build_cuda.Unavailable:
        pytest.skip("no compiler for PTX")
    assert counts.without_triton(said) == counts.page(MODULE, []), "run `make counts`"


@built
@pytest.mark.slow
def test_triton_rows_are_what_its_compiler_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    said = counts.PAGE.read_text(encoding="utf-8")
    rows = counts.rows_of_triton(counts.of_triton())
    assert rows and all(row in said.splitlines() for row in rows), "run `make counts`"


@pytest.mark.parametrize(
    ("chip", "registers", "shared", "threads", "blocks", "limit"),
    [
        (90, 64, 9248, 128, 8, "registers"),
        (90, 33, 0, 128, 12, "registers"),  # 40 for each thread: warps get pieces of 256
        (90, 32, 0, 1024, 2, "threads"),
        (90, 16, 0, 32, 32, "blocks"),
        (75, 16, 9248, 128, 6, "shared memory"),
        (75, 16, 9216, 128, 7, "shared memory"),
        (120, 16, 49 << 10, 128, 2, "shared memory"),
        (120, 16, 50 << 10, 128, 1, "shared memory"),  # with the system's 1 KiB not twice
    ],
)
def test_blocks_of_a_multiprocessor(chip, registers, shared, threads, blocks, limit):
    found = resident(CHIPS[chip], registers, shared, threads)
    assert (found.blocks, found.threads) == (blocks, blocks * threads)
    assert limit in found.limits


def test_loads_before_the_first_use():
    (loop,) = loops_of(LOOP)
    assert flight.in_flight(loop.texts) == (3, 16 + 2 + 32)
    assert flight.loaded(loop.texts) == 16 + 2 + 32 + 4
    assert flight.in_flight(loop.texts[:2] + ["FADD R1, R7, R7"] + loop.texts[2:]) == (2, 18)


def test_the_shortest_way_leaves_out_what_is_jumped_over():
    (loop,) = loops_of(LOOP)
    assert loop.shortest == 7
    assert not any("DADD" in text for text in loop.way)


def test_a_chain_goes_through_shared_memory():
    (function,) = parse(REACHES_THE_GRADIENT).functions
    found = chain.chain_to(function, lambda one: ".v4." in one.opcode)
    assert [load.operands[1] for load in found] == ["[%rd1+8]", "[%rd2]"]


def test_a_chain_in_order_waits_for_branches_and_barriers():
    (function,) = parse(REACHES_THE_GRADIENT).functions
    found = chain.chain_to(function, lambda one: ".v4." in one.opcode, orders=True)
    assert [load.operands[1] for load in found] == ["[%rd1]", "[%rd1+8]", "[%rd2]", "[%rd3]"]


def test_what_is_not_counted_is_not_followed():
    (function,) = parse(REACHES_THE_GRADIENT).functions
    found = chain.chain_to(
        function, lambda one: ".v4." in one.opcode, lambda one: "%rd3" in one.operands[:1]
    )
    assert found == ()


def test_blocks_come_after_what_leads_to_them():
    (function,) = parse(REACHES_THE_GRADIENT).functions
    blocks = flow.blocks_of(function)
    order = flow.order(blocks)
    first = [blocks[n].instructions[0].opcode for n in order if blocks[n].instructions]
    assert first == ["ld.param.u64", "bra.uni", "ld.global.u64", "bar.sync"]


def test_turns_grow_with_what_they_are_of():
    one, many = plan_model.GPT2, plan_model.replace(plan_model.GPT2, tensors=1000, groups=148)
    assert [plan_model.turns("leaders", work) for work in (one, many)] == [2, 8]
    assert [plan_model.turns("fields", work) for work in (one, many)] == [1, 19]
    assert [plan_model.turns("updates", work) for work in (one, many)] == [1, 4]
    assert plan_model.turns("a unit", one) == 0
