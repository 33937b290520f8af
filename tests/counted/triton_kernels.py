"""Triton's kernels, compiled without a GPU; run as a process of its own, prints JSON.

Usage: triton_kernels.py TARGET...: compute capabilities such as 90.
"""

import json
import re
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "triton")]

import compiling  # noqa: E402
from lib.machine_code import loops_of  # noqa: E402

from counted.flight import in_flight  # noqa: E402

THREADS = 128  # of a block, as compiling builds
DTYPES = ("float32", "bfloat16")


def facts(compiled):
    """What a multiprocessor has to hold of a block, and the loads of the loop that has most."""
    sass, usage = compiling.disassembled(compiled.asm["cubin"])
    loop = max(loops_of(sass), key=lambda loop: loop.count(r"\bLDG\S*\.128"), default=None)
    loads, size = in_flight(loop.way) if loop else (0, 0)
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "spills": len(re.findall(r"\b(?:STL|LDL)\b", sass)),
        "shared": compiled.metadata.shared,
        "threads": THREADS,
        "loads": loads,
        "bytes": size,
        "instructions": loop.shortest if loop else 0,
    }


def main(*targets):
    rows = []
    for target in targets:
        for dtype in DTYPES:
            constants = {"KINDS": compiling.KINDS[dtype], "FLAGS": compiling.FLAGS}
            measure = compiling.build(
                compiling.measure_kernel, target, SHAPES=compiling.SHAPES, **constants
            )
            applied = compiling.build(
                compiling.apply_kernel, target, **compiling.of_rule(compiling.ADAMW), **constants
            )
            for name, built in (("measure", measure), ("apply, AdamW", applied)):
                title = f"{name}, {dtype}"
                rows.append({"title": title, "target": int(target), **facts(built)})
        plan = compiling.build(compiling.plan_kernel, target, SHAPES=compiling.SHAPES, FLAGS=0)
        rows.append({"title": "plan", "target": int(target), **facts(plan)})
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
