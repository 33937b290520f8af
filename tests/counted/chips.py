"""What a multiprocessor of each chip holds, and how many blocks of a kernel fit in.

Source: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability", and the
rules of NVIDIA's occupancy calculator.
"""

from dataclasses import dataclass

WARP = 32
REGISTERS = 65536  # of a multiprocessor, a quarter for each of its four schedulers
SCHEDULERS = 4
OF_A_WARP = 256  # registers are given to warps in such pieces


@dataclass(frozen=True)
class Chip:
    """Limits of one multiprocessor."""

    threads: int
    blocks: int
    shared: int  # bytes, if all of the first cache that can be is shared memory
    reserved: int  # of it for each block
    piece: int  # in which it is given to blocks


CHIPS = {
    75: Chip(1024, 16, 64 << 10, 0, 256),
    80: Chip(2048, 32, 164 << 10, 1024, 128),
    90: Chip(2048, 32, 228 << 10, 1024, 128),
    100: Chip(2048, 32, 228 << 10, 1024, 128),
    120: Chip(1536, 24, 100 << 10, 1024, 128),
}


@dataclass(frozen=True)
class Resident:
    blocks: int
    threads: int
    limits: tuple[str, ...]  # what there is not enough of for one more


def resident(chip: Chip, registers: int, shared: int, threads: int) -> Resident:
    """How many blocks of so many threads a multiprocessor runs at once."""
    warps = -(-threads // WARP)
    of_warp = _up(registers * WARP, OF_A_WARP)
    by = {
        "registers": REGISTERS // SCHEDULERS // of_warp * SCHEDULERS // warps,
        "threads": chip.threads // (warps * WARP),
        "blocks": chip.blocks,
        "shared memory": chip.shared // max(_up(shared + chip.reserved, chip.piece), 1),
    }
    blocks = min(by.values())
    limits = tuple(name for name, most in by.items() if most == blocks)
    return Resident(blocks, blocks * threads, limits)


def _up(number: int, piece: int) -> int:
    return -(-number // piece) * piece
