"""What nvcc made of the CUDA kernels: read from the module that was built, without a GPU."""

import functools
import re
import subprocess
from pathlib import Path

import pytest
from lib import machine_code

import lrfused

MODULE = next(Path(lrfused.__file__).parent.glob("_cuda.*.so"), None)
pytest.importorskip("triton")  # its wheel has the disassembler
pytestmark = pytest.mark.skipif(MODULE is None, reason="lrfused._cuda was not built")

REGISTERS = {"measure_and_plan": 72, "5apply": 64}
LOAD, WIDE_LOAD = r"\bLDG\.", r"\bLDG\.\S*\.(128|256)"
STORE = r"\bSTG\."
GENERIC = r"\b(LD|ST)\.E\b"
# Elements of a turn of apply's float32 loop, and the most instructions of each: about a tenth more
# than the 34 of IEEE arithmetic and addresses on sm_90, where 37.5 leave apply at 96% of a copy's
# bandwidth (benchmarks/results/gpu-phases.json); older chips take a little more.
ELEMENTS, MOST, MOST_OF_OLDER = 8, 37.5, {75: 40, 80: 38}
# Mixtures of types that apply has loops for, with amsgrad and without; and those without that have
# another loop where nothing is clipped: with four elements of 16 bytes, or with 32 bytes.
MIXTURES, IN_PAIRS, OF_256_BITS = 2 * 8, 5, 7


@functools.cache
def kernels(name):
    found = [f for f in machine_code.functions(MODULE) if name in f.name]
    assert found
    return found


def has_256_bits(function):
    return function.architecture >= 100


def float32_loops(function):
    """Those of apply for four tensors in float32 of which nothing but the update is wanted."""
    bits, turns = (256, 1) if has_256_bits(function) else (128, 2)
    return [
        loop
        for loop in function.loops
        if loop.count(rf"\bLDG\.\S*\.{bits}") == loop.count(LOAD) == 4 * turns
        and loop.count(rf"\bSTG\.\S*\.{bits}") == loop.count(STORE) == 3 * turns
        and loop.count(r"\bMUFU\.RSQ\b") == ELEMENTS
    ]


@pytest.mark.parametrize("name", REGISTERS)
def test_registers_suffice(name):
    """No stack frame, and so no spills."""
    for kernel in kernels(name):
        about = (kernel.name, kernel.architecture)
        assert kernel.registers <= REGISTERS[name], about
        assert (kernel.stack, kernel.local) == (0, 0), about
        assert not re.search(r"\b(STL|LDL)\b", kernel.sass), about


@pytest.mark.parametrize("name", REGISTERS)
def test_compiled_for_the_chips_that_were_asked_for(name):
    assert {kernel.architecture for kernel in kernels(name)} <= {75, 80, 90, 100, 120}


def test_apply_accesses_as_much_global_memory_at_once_as_the_chip_can():
    """One loop for float32, which has no other access than these; none is generic."""
    for kernel in kernels("5apply"):
        assert len(float32_loops(kernel)) == 1, kernel.architecture
        wide = [loop for loop in kernel.loops if loop.count(WIDE_LOAD)]
        more = OF_256_BITS if has_256_bits(kernel) else IN_PAIRS
        assert len(wide) == MIXTURES + more, kernel.architecture
        assert sum(loop.count(r"\bLDG\.\S*\.256") > 0 for loop in wide) == (
            OF_256_BITS if has_256_bits(kernel) else 0
        )
        assert all(loop.count(GENERIC) == 0 for loop in wide)


def test_measure_reads_128_bits():
    """Eight rows of a block each turn, for each type of gradients that fills 16 bytes."""
    for kernel in kernels("measure_and_plan"):
        wide = [loop for loop in kernel.loops if loop.count(WIDE_LOAD)]
        assert wide and all(loop.count(WIDE_LOAD) >= 8 for loop in wide)
        assert all(loop.count(GENERIC) == 0 for loop in wide)


def test_instructions_an_element():
    for kernel in kernels("5apply"):
        (loop,) = float32_loops(kernel)
        most = MOST_OF_OLDER.get(kernel.architecture, MOST)
        assert loop.shortest <= most * ELEMENTS, kernel.architecture


def ptx():
    """The PTX that the module carries, for chips to come."""
    tool = machine_code.tool("cuobjdump")
    done = subprocess.run([tool, "-ptx", MODULE], capture_output=True, text=True, check=True)
    return done.stdout


def test_nothing_is_contracted():
    """In PTX every operation rounds by itself; division and root are made of FFMA only later."""
    for arithmetic in re.findall(r"\b(?:fma|mad|mul|add|sub|div|sqrt)\.\S*f(?:32|64)\b", ptx()):
        assert not re.search(r"fma|mad|ftz|approx|full|\.r[zmp]\b", arithmetic), arithmetic


def test_who_finishes_last_sees_what_the_others_stored():
    """Barrier, stores, fence, ticket, fence, barrier, loads past the first cache.

    The tickets are those of a unit, a span and the step.
    """
    entries = re.split(r"\.entry ", ptx())
    measures = [entry for entry in entries if re.match(r"\S*measure_and_plan", entry)]
    assert len(measures) == 2  # gradients among the parameters: few, many
    for code in measures:
        tickets = [m.start() for m in re.finditer(r"atom\.global\.inc\.u32", code)]
        assert len(tickets) == 3
        assert "ld.global.cg.f64" not in code[: tickets[0]]
        for ticket in tickets:
            before, after = code[:ticket], code[ticket:]
            fence = before.rindex("membar.gl;")
            assert before.rindex("bar.sync") < before.rindex("st.global") < fence
            first = after.index("ld.global.cg.f64")
            assert after.index("membar.gl;") < after.index("bar.red") < first
        of_units, of_spans, of_step = (
            part.count("ld.global.cg.f64") for part in re.split(r"atom\.global\.inc\.u32", code)[1:]
        )
        assert of_units >= 3 * 4  # raw, clipped, param by quarters
        assert of_spans >= 4 * 4 + 1  # largest, too, and the factor of a unit
        assert of_step >= 4  # sums of spans


def test_apply_waits_for_plan_on_every_way():
    """A block that ended before would let what is launched next come before plan has ended."""
    for kernel in kernels("5apply"):
        if kernel.architecture >= 90:
            first = kernel.before(r"\bACQBULK\b")
            assert any("CCTL" in text for text in first), "what is prefetched"
            assert not [text for text in first if re.search(r"\b(EXIT|RET)\b", text)]
            assert len(first) < len(machine_code.instructions(kernel.sass)) / 10
