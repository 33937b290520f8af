"""What nvcc made of the CUDA kernels: read from the module that was built, without a GPU."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from lib import machine_code

import lrfused

sys.path.insert(0, str(Path(__file__).parents[2] / "csrc"))
import build_cuda

MODULE = next(Path(lrfused.__file__).parent.glob("_cuda.*.so"), None)
pytest.importorskip("triton")  # its wheel has the disassembler
pytestmark = pytest.mark.skipif(MODULE is None, reason="lrfused._cuda was not built")

LOAD, WIDE_LOAD = r"\bLDG\.", r"\bLDG\.\S*\.(128|256)"
STORE = r"\bSTG\."
GENERIC = r"\b(LD|ST)\.E\b"
PACKED = r"\bF2FP\b"  # two numbers of two bytes
REGISTERS = {"measure_and_plan": 72, "apply": 64}
ELEMENTS = 8  # of a turn of apply's float32 loop
AVERAGES = 3  # loops over averages, which are float32: of parameters of three types


@dataclass
class Apply:
    """A rule's kernel: for each number of operands the most instructions of a float32 element.

    They are about a tenth more than arithmetic and addresses take on sm_90: 34 of AdamW, where 37.5
    leave apply at 96% of a copy's bandwidth (benchmarks/results/gpu-phases.json). Older chips take
    a little more. SGD is counted with the terms whose factor is 0 left out.
    """

    instructions: dict[int, float]
    of_older: dict[int, float]  # by architecture, in place of those
    only_by_16: tuple[int, ...] = ()  # numbers of operands that leave no registers for 32 bytes

    def mixtures(self) -> int:
        """Of types, each with a loop: without operands there are no types of those."""
        return sum(8 if operands else 6 for operands in self.instructions)

    def unclipped(self, has_256_bits: bool) -> int:
        """Mixtures that have another loop where nothing is clipped: of 32 bytes, or 16 twice."""
        with_operands, without = (7, 5) if has_256_bits else (5, 3)
        return sum(
            with_operands if operands else without
            for operands in self.instructions
            if operands not in self.only_by_16
        )


RULES = {
    "AdamW": Apply({2: 37.5, 3: 0.0}, {75: 40, 80: 38}, only_by_16=(3,)),
    "Lion": Apply({1: 20.5}, {}),
    "Sgd": Apply({0: 9.0, 1: 18.5}, {}),
}
KERNELS = ["measure_and_plan", *RULES]


def kernels(name, few=True):
    """Those of measure and plan, or of a rule's apply; with few gradients among the parameters.

    With many there are as many kernels, of which only that is another.
    """
    part = f"5applyINS_{len(name)}{name}E" if name in RULES else name
    found = [f for f in machine_code.functions(MODULE) if part in f.name]
    capacities = sorted({int(re.search(r"Li(\d+)E", f.name)[1]) for f in found})
    assert len(capacities) == 2
    return [f for f in found if not few or f"Li{capacities[0]}E" in f.name]


def has_256_bits(function):
    return function.architecture >= 100


def float32_loop(function, operands):
    """That of apply for tensors in float32 of which nothing but the update is wanted."""
    bits, turns = (256, 1) if has_256_bits(function) else (128, 2)
    loops = [
        loop
        for loop in function.loops
        if loop.count(rf"\bLDG\.\S*\.{bits}") == loop.count(LOAD) == (2 + operands) * turns
        and loop.count(rf"\bSTG\.\S*\.{bits}") == loop.count(STORE) == (1 + operands) * turns
        and not loop.count(PACKED)
    ]
    assert len(loops) == 1, (function.name, function.architecture)
    return loops[0]


def float32_loops(rule):
    """(kernel, number of operands, loop)"""
    numbers = [n for n in RULES[rule].instructions if n not in RULES[rule].only_by_16]
    return [(f, n, float32_loop(f, n)) for f in kernels(rule) for n in numbers]


def test_every_rule_is_looked_at():
    assert list(RULES) == build_cuda.rule_names(Path(__file__).parents[2] / "csrc")


@pytest.mark.parametrize("name", KERNELS)
def test_registers_suffice(name):
    """No stack frame, and so no spills."""
    for kernel in kernels(name, few=False):
        about = (kernel.name, kernel.architecture)
        assert kernel.registers <= REGISTERS["apply" if name in RULES else name], about
        assert (kernel.stack, kernel.local) == (0, 0), about
    for kernel in kernels(name):
        assert not re.search(r"\b(STL|LDL)\b", kernel.sass), kernel.architecture


@pytest.mark.parametrize("name", KERNELS)
def test_compiled_for_the_chips_that_were_asked_for(name):
    found = {kernel.architecture for kernel in kernels(name, few=False)}
    assert found <= {75, 80, 90, 100, 120}


@pytest.mark.parametrize("rule", RULES)
def test_apply_accesses_as_much_global_memory_at_once_as_the_chip_can(rule):
    """One loop for float32, which has no other access than these; none is generic."""
    assert float32_loops(rule)
    for kernel in kernels(rule):
        about, of_256 = kernel.architecture, has_256_bits(kernel)
        wide = [loop for loop in kernel.loops if loop.count(WIDE_LOAD)]
        more = RULES[rule].unclipped(of_256)
        assert len(wide) == RULES[rule].mixtures() + more + AVERAGES, about
        assert sum(loop.count(r"\bLDG\.\S*\.256") > 0 for loop in wide) == more * of_256, about
        assert all(loop.count(GENERIC) == 0 for loop in wide)


@pytest.mark.parametrize("rule", RULES)
def test_apply_loads_all_of_a_batch_before_it_stores(rule):
    """What is stored may be what is loaded next, for all that the compiler knows."""
    for kernel, operands, loop in float32_loops(rule):
        stores = [i for i, text in enumerate(loop.texts) if re.search(STORE, text)]
        loads = [text for text in loop.texts[: stores[0]] if re.search(LOAD, text)]
        assert len(loads) >= 2 + operands, (kernel.architecture, operands)


def test_measure_reads_128_bits():
    """Eight rows of a block each turn, for each type of gradients that fills 16 bytes."""
    for kernel in kernels("measure_and_plan"):
        wide = [loop for loop in kernel.loops if loop.count(WIDE_LOAD)]
        assert wide and all(loop.count(WIDE_LOAD) >= 8 for loop in wide)
        assert all(loop.count(GENERIC) == 0 for loop in wide)


@pytest.mark.parametrize("rule", RULES)
def test_instructions_an_element(rule):
    for kernel, operands, loop in float32_loops(rule):
        most = RULES[rule].of_older.get(kernel.architecture, RULES[rule].instructions[operands])
        assert loop.shortest <= most * ELEMENTS, (kernel.architecture, operands)


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
    """Barrier, stores, fence, ticket, fence, barrier.

    The tickets are those of a unit, a span and the step. That each is needed, and enough, is seen
    where the PTX is executed (tests/ptx/test_each_guard.py).
    """
    entries = re.split(r"\.entry ", ptx())
    measures = [entry for entry in entries if re.match(r"\S*measure_and_plan", entry)]
    assert len(measures) == 2  # gradients among the parameters: few, many
    for code in measures:
        tickets = [m.start() for m in re.finditer(r"atom\.global\.inc\.u32", code)]
        assert len(tickets) == 3
        for ticket in tickets:
            before, after = code[:ticket], code[ticket:]
            fence = before.rindex("membar.gl;")
            assert before.rindex("bar.sync") < before.rindex("st.global") < fence
            assert after.index("membar.gl;") < after.index("bar.red")


@pytest.mark.parametrize("rule", RULES)
def test_apply_waits_for_plan_on_every_way(rule):
    """A block that ended before would let what is launched next come before plan has ended."""
    for kernel in kernels(rule):
        if kernel.architecture >= 90:
            first = kernel.before(r"\bACQBULK\b")
            assert any("CCTL" in text for text in first), "what is prefetched"
            assert not [text for text in first if re.search(r"\b(EXIT|RET)\b", text)]
            assert len(first) < len(machine_code.instructions(kernel.sass)) / 10
