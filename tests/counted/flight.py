"""Bytes that are asked for at once, and instructions of float64: of the main loops of kernels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lib.machine_code import Loop

from counted.kernels import Kernel

LOAD = re.compile(r"(?:@!?U?P\w+ )?LDG\.(\S+) (R\d+)(?:, (R\d+))?")
STORE = r"\bSTG\."
ATOMIC = r"\bATOMS\."  # of measure's loops over gradients: those over parameters count no tiny ones
FLOAT64 = r"\b(DADD|DMUL|DFMA|DSETP|F2F\.F64\.\S+|F2F\.F32\.F64|MUFU\.\S*64H)\b"
TO_BFLOAT16 = r"\bF2FP\.BF16"
OTHER_HALF = r"\b(HADD2|F2FP\.F16|F2FP\.PACK|F2F\.F16)"
OPERANDS = {"AdamW": 2, "SGD": 1, "Lion": 1}  # of usual options, SGD with momentum
ROWS = 8  # of a turn of measure, each 16 bytes of float32


@dataclass(frozen=True)
class Main:
    """A main loop: what stands in its usual way."""

    loads: int
    bytes: int  # of a thread, asked for before any of it is used
    instructions: int  # of the shortest turn
    elements: int  # of a thread's turn
    float64: int
    rare_float64: int  # if every sum of eight squares is added anew in float64


def bits_of(opcode: str) -> int:
    """Of a load: LDG.E.128, LDG.E.U16, ..."""
    width = re.search(r"\.(256|128|64|U16|S16|U8|S8)\b", f".{opcode}")
    return int(width[1].strip("US")) if width else 32


def loaded(texts: Sequence[str]) -> int:
    """Bytes that all loads of a thread bring."""
    return sum(bits_of(load[1]) for load in map(LOAD.match, texts) if load) // 8


def in_flight(texts: Sequence[str]) -> tuple[int, int]:
    """Loads before the first use of what one of them brings, and their bytes."""
    waiting: set[str] = set()
    loads = size = 0
    for text in texts:
        load = LOAD.match(text)
        if waiting & set(re.findall(r"\bR\d+\b", text[load.end() :] if load else text)):
            break
        if load:
            bits = bits_of(load[1])
            # 256 bits come to two places of four registers each.
            places = [int(r[1:]) for r in load.groups()[1:] if r]
            each = max(bits // 32 // len(places), 1)
            waiting |= {f"R{place + i}" for place in places for i in range(each)}
            loads, size = loads + 1, size + bits // 8
    return loads, size


def main_of_apply(kernel: Kernel, dtype: str) -> Main | None:
    """The loop for tensors that are all of a dtype; that which clips nothing, if it is another."""
    own = 2 + OPERANDS[kernel.title.removeprefix("apply, ")]
    found = [
        loop
        for loop in kernel.function.loops
        if _is_of(loop, dtype) and loop.count(r"\bLDG\.") % own == 0 and _is_wide(loop)
    ]
    # That which clips nothing stores no gradient.
    plain = [
        loop for loop in found if loop.count(STORE) * own == loop.count(r"\bLDG\.") * (own - 1)
    ]
    loops = plain or found
    if len(loops) != 1:
        return None
    size = loaded(loops[0].texts)
    return _main(loops[0], size // own // (4 if dtype == "float32" else 2))


def main_of_measure(kernel: Kernel, dtype: str) -> Main | None:
    """The loop over gradients; read at an address of 16 bytes, of no parameter that is masked."""
    bits, narrow = (128, 32) if dtype == "float32" else (64, 16)
    loops = [
        loop
        for loop in kernel.function.loops
        if loop.count(ATOMIC)
        and (widths := [bits_of(m[1]) for m in map(LOAD.match, loop.texts) if m]).count(bits)
        == ROWS
        and widths.count(narrow) >= ROWS * 4  # one by one, where an address is no multiple of 16
        and loop.count(r"\bDADD\b") == 32  # of four columns, the rare way counted, too
        and not loop.count(r"\bHADD2")
    ]
    if len(loops) != 1:
        return None
    return _main(loops[0], ROWS * 4)


def _main(loop: Loop, elements: int) -> Main:
    loads, size = in_flight(loop.way)
    usual = sum(bool(re.search(FLOAT64, text)) for text in loop.way)
    # The usual way converts a sum, which the rare one does not have.
    rare = loop.count(FLOAT64) - usual // 2
    return Main(loads, size, loop.shortest, elements, usual, rare)


def _is_wide(loop: Loop) -> bool:
    found = [bits_of(m[1]) for m in map(LOAD.match, loop.texts) if m]
    return len(set(found)) == 1 and found[0] >= 128


def _is_of(loop: Loop, dtype: str) -> bool:
    if loop.count(OTHER_HALF) or loop.count(r"\bD(ADD|MUL|FMA)\b"):
        return False
    return bool(loop.count(TO_BFLOAT16)) == (dtype == "bfloat16")
