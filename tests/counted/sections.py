"""Tables of docs/counts.md that are read from machine code."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from counted import flight
from counted.chips import CHIPS, resident
from counted.kernels import Kernel, kernels

DTYPES = ("float32", "bfloat16")
LATENCY, MULTIPROCESSORS = 700e-9, 132
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}
# A chip with two results of float64 a clock and multiprocessor, one in 64 of float32.
CLOCK, OF_A_CLOCK, SMALL_CHIPS = 2.4e9, 2, 128
READING = 1.008e12  # bytes a second, of an RTX 4090's memory
GPT2 = 124439808
USAGE = """\
## Registers, memory, blocks at once

Blocks of measure have {MEASURE} threads, those of apply {APPLY}. Resident are as many blocks as a
multiprocessor holds; what there is not enough of for another one is in the last column. "Both" is
a kernel with few and with many gradients among its parameters. Shared memory is without the 1 KiB
that the system keeps of each block on sm_80 and newer. Triton's blocks have 128 threads. On sm_75
shared memory is given in pieces of 256 bytes: 32 bytes less for each block of measure, and a
seventh would fit.
"""
FLIGHT = """\
## Bytes in flight

By Little's law a memory keeps its bandwidth busy if bandwidth times latency is on its way: with
700 ns, {needed}, of each of 132 multiprocessors. On its way at most is what a thread asks for
before it uses any of it, times all resident threads. A row counts loads in the shortest turn of
the main loop, of AdamW with two operands, SGD with momentum, Lion; of measure where addresses are
multiples of 16 bytes and nothing is masked. Instructions are of that turn; SGD's are without the
terms whose factor is 0, and those of sixteen elements of bfloat16 at once, which SGD and Lion
update with pauses, are not counted. For Triton it is the loop with most loads of 16 bytes. At its
most each has more on its way than an H200 needs; but a block of Triton's measure is one of two,
so that while one adds the other asks.
"""
FLOAT64 = """\
## float64 where it is slow

Chips such as sm_86, sm_89 and sm_120 have two results of float64 a clock and multiprocessor, 1/64
of float32's; conversions to float64 are no quicker. A column of eight float32 squares is added in
float32, converted and added to its lane in float64. Where its sum may have been too small or too
large for float32 (below 2^-100, above 2^127), the eight are squared and added in float64: the
rare way. Times are GPT-2's 124 million elements over 128 multiprocessors at 2.4 GHz, beside
reading them at 1008 GB/s; both go on at once, so they add only where float64 takes the longer.
"""
MATTERS = """\
The usual way takes a tenth of the time that measure reads in float32 and a fifth in bfloat16,
beside the reading. The rare way takes longer than the reading: it would matter for gradients most
of which are below 1e-16 and not 0 (as small ones of a model in bfloat16 without a loss scale may
be), or of which a column is above 1e19. Columns of zeros take the usual way. Apply has float64
only where parameters are float64, all of its arithmetic then. The sum of a block of measure adds
8 numbers of float64 for the 128 elements of a thread; plan's sums, in one block, wait for each
other and not for the units that add.
"""


def filled(text: str) -> str:
    """Paragraphs whose numbers have been filled in, in lines of a page's length."""
    parts = text.split("\n\n")
    return "\n\n".join(textwrap.fill(x, 100, break_on_hyphens=False) for x in parts) + "\n"


def table(headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    heads = list(headings)
    lines = [heads, ["---"] * len(heads), *rows]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def usage(binary: Path) -> list[list[Any]]:
    """One row for each kernel and architecture."""
    return [
        [
            f"CUDA, {kernel.title}",
            kernel.capacity,
            f"sm_{kernel.function.architecture}",
            kernel.function.registers,
            f"{kernel.function.stack} / {kernel.function.local}",
            kernel.shared,
            kernel.resident.blocks,
            kernel.resident.threads,
            ", ".join(kernel.resident.limits),
        ]
        for kernel in kernels(binary)
    ]


USAGE_HEADS = ("kernel", "gradients", "chip", "registers", "stack / spilled bytes", "shared bytes")
USAGE_HEADS += ("blocks", "threads", "limited by")


def usage_of_triton(found: list[dict[str, Any]]) -> list[list[Any]]:
    rows = []
    for one in found:
        held = of_triton(one)
        spilled = f"{one['stack']} / {one['spills']} instructions"
        rows.append(
            [f"Triton, {one['title']}", "", f"sm_{one['target']}", one["registers"], spilled]
            + [one["shared"], held.blocks, held.threads, ", ".join(held.limits)]
        )
    return rows


def of_triton(one: dict[str, Any]) -> Any:
    return resident(CHIPS[one["target"]], one["registers"], one["shared"], one["threads"])


def main_of(kernel: Kernel, dtype: str) -> flight.Main | None:
    find = flight.main_of_measure if "measure" in kernel.title else flight.main_of_apply
    return find(kernel, dtype)


def mains(binary: Path) -> list[tuple[Kernel, str, flight.Main]]:
    """The main loops that are found: sm_75 has no instruction for bfloat16."""
    found = []
    for kernel in kernels(binary):
        for dtype in DTYPES:
            main = main_of(kernel, dtype)
            if main and (kernel.function.architecture >= 80 or dtype == "float32"):
                found.append((kernel, dtype, main))
    return found


FLIGHT_HEADS = ("kernel", "chip", "loads", "bytes of a thread", "resident threads")
FLIGHT_HEADS += ("KB of a multiprocessor", "instructions", "of an element")


def in_flight(found: list[tuple[Kernel, str, flight.Main]]) -> list[list[Any]]:
    return [
        [
            f"CUDA, {kernel.title.removesuffix(' and plan')}, {dtype}",
            f"sm_{kernel.function.architecture}",
            main.loads,
            main.bytes,
            kernel.resident.threads,
            f"{main.bytes * kernel.resident.threads / 1000:.0f}",
            *((main.instructions, f"{main.instructions / main.elements:.1f}") if counted else "--"),
        ]
        for kernel, dtype, main in found
        for counted in [main.elements <= 8 or not pauses(kernel)]
    ]


def pauses(kernel: Kernel) -> bool:
    """Whose loops over many elements have ends in between, which no tile takes."""
    return kernel.title in ("apply, SGD", "apply, Lion")


def in_flight_of_triton(found: list[dict[str, Any]]) -> list[list[Any]]:
    return [
        [f"Triton, {one['title']}", f"sm_{one['target']}", one["loads"], one["bytes"], threads]
        + [f"{one['bytes'] * threads / 1000:.0f}", one["instructions"], ""]
        for one in found
        if one["title"] != "plan"
        for threads in [of_triton(one).threads]
    ]


def needed() -> str:
    """What latency and bandwidth ask for."""
    each = {name: rate * LATENCY / MULTIPROCESSORS for name, rate in BANDWIDTH.items()}
    return ", ".join(f"{size / 1000:.1f} KB of an {name}" for name, size in each.items())


FLOAT64_HEADS = (
    "kernel, chip",
    "float64 instructions of an element",
    "us for GPT-2",
    "us to read it",
)


def float64(found: list[tuple[Kernel, str, flight.Main]]) -> list[list[Any]]:
    """Of the newest chip; of apply with AdamW."""
    rows = []
    for kernel, dtype, main in found:
        if kernel.function.architecture != 120 or kernel.title not in (
            "measure and plan",
            "apply, AdamW",
        ):
            continue
        reads = main.bytes // main.elements * GPT2 if "measure" in kernel.title else None
        name = f"{kernel.title.removesuffix(' and plan')}, {dtype}, sm_120"
        for way, count in (("", main.float64), (", the rare way", main.rare_float64)):
            if not way or count:
                each = count / main.elements
                time = GPT2 * each / (SMALL_CHIPS * OF_A_CLOCK * CLOCK)
                reading = f"{reads / READING * 1e6:.0f}" if reads else "more than measure"
                rows.append([name + way, f"{each:g}", f"{time * 1e6:.0f}", reading])
    return rows
