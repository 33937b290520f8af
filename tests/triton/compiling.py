"""Compiles kernels without a GPU and reads the machine code; run as a process of its own.

Usage: compiling.py TARGET KIND...: a compute capability such as 90, or gfx942; prints JSON.
       compiling.py --targets sm_90,gfx942 ...: every kernel with every option, see sweeping.py
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
if __name__ == "__main__":  # not where somebody imports this, to look for doctests
    os.environ.pop("TRITON_INTERPRET", None)

import triton  # noqa: E402
from lib.machine_code import loops_of, tool  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from lrfused import schedules as S  # noqa: E402
from lrfused.backends.triton import shapes  # noqa: E402
from lrfused.backends.triton import words as w  # noqa: E402
from lrfused.backends.triton.apply import apply_kernel  # noqa: E402
from lrfused.backends.triton.kinds import kind, registers_of_measure  # noqa: E402
from lrfused.backends.triton.measure import measure_kernel  # noqa: E402
from lrfused.backends.triton.plan import plan_kernel  # noqa: E402
from lrfused.rules import ADAMW  # noqa: E402
from lrfused.settings.options import GroupOptions  # noqa: E402
from lrfused.settings.slots import Slot  # noqa: E402

FLOATS = {"samples", "numbers", "raw", "clipped", "param", "matrix", "records", "factors"}
FLOATS |= {"scalars", "carried"}
SINGLE = {"grad_scale", "found_inf", "loss_scale", "steps"}
TUPLES = {
    "table": w.Table,
    "state": w.State,
    "measured": w.Measured,
    "decided": w.Decided,
}
KINDS = {
    "float32": kind(1, 1, (1, 1)),
    "bfloat16": kind(2, 2, (2, 2)),
    "float64": kind(0, 0, (0, 0)),
    "everything": kind(1, 2, (1, 1, 1), agc=True, clip=True),
}


def group_options(rule, on=False):
    """Of a group with all that only its rule knows, or none of it."""
    chosen = {name: choices[-1 if on else 0] for name, choices in rule.arguments.items()}
    keys = [*rule.switches, *(slot.key for slot in rule.presence)]
    return GroupOptions(of_rule={**dict.fromkeys(keys, on), **chosen})


def of_rule(rule):
    """What apply is compiled for beside dtypes and options."""
    return {"RULE": rule.name, "SCALARS": len(rule.scalars)}


LR = [(0, Slot.LR, S.warmup_cosine(1e-3, 10, 100))]
SHAPES = shapes.arrange(LR, ADAMW, [group_options(ADAMW)]).flat
FLAGS = int(w.MEASURES) | int(w.CLIP_NORM) | int(w.CHECKS_GRADIENTS) | int(w.DYNAMIC_SCALE)


def pointer_type(name):
    if name == "tickets":
        return "*i32"
    return "*fp64" if name in FLOATS else "*fp32" if name in SINGLE else "*i64"


def argument_type(name, constants):
    if name in constants:
        return "constexpr"
    fields = TUPLES.get(name)
    return fields(*map(pointer_type, fields._fields)) if fields else pointer_type(name)


def target_of(name):
    """Of 90, sm_90 or gfx942."""
    number = name.removeprefix("sm_")
    return GPUTarget("cuda", int(number), 32) if number.isdigit() else GPUTarget("hip", name, 64)


def build(kernel, target, fusion=False, **constants):
    signature = {name: argument_type(name, constants) for name in kernel.arg_names}
    gpu = target_of(target)
    options = {"enable_fp_fusion": fusion, "num_warps": 128 // gpu.warp_size}
    if kernel is measure_kernel and gpu.backend == "cuda":
        options["maxnreg"] = registers_of_measure([constants["KINDS"]]) or None
    return triton.compile(ASTSource(kernel, signature, constants, {}), target=gpu, options=options)


def disassembled(cubin):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        commands = [[tool("cuobjdump"), flag, path] for flag in ("-sass", "-res-usage")]
        outputs = [
            subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for command in commands
        ]
    return outputs


def wide_loops(sass, around=""):
    return [loop for loop in loops_of(sass, around) if loop.count(r"LDG\.E\S*\.128")]


def nvidia_facts(compiled):
    sass, usage = disassembled(compiled.asm["cubin"])
    # A turn of measure asks all threads something; where the answer is rare, it has loops inside.
    turns = wide_loops(sass, r"\bBAR\b") or wide_loops(sass)
    stack = re.search(r"STACK:(\d+)", usage)
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "stack": int(stack[1]),
        "spills": len(re.findall(r"\b(?:STL|LDL)\b", sass)),
        "ptx": compiled.asm["ptx"],
        "loops": [
            {
                "instructions": loop.shortest,
                "loads": loop.count(r"LDG\.E\S*\.128"),
                "narrow_loads": loop.count(r"LDG\.E(?!\S*\.128)"),
                "stores": loop.count(r"STG\.E\S*\.128"),
                "narrow_stores": loop.count(r"STG\.E(?!\S*\.128)"),
                "ffma": loop.count(r"\bFFMA"),
            }
            for loop in turns
        ],
    }


def amd_facts(compiled):
    assembly = compiled.asm["amdgcn"]
    return {
        "spills": sum(map(int, re.findall(r"\.vgpr_spill_count:\s+(\d+)", assembly))),
        "loads": len(re.findall(r"(?:global|buffer|flat)_load_dwordx4", assembly)),
        "stores": len(re.findall(r"(?:global|buffer|flat)_store_dwordx4", assembly)),
    }


def main(target, *names):
    facts = nvidia_facts if target.isdigit() else amd_facts
    results = {}
    for name in names:
        constants = {"KINDS": KINDS[name], "FLAGS": FLAGS}
        applied = build(apply_kernel, target, **of_rule(ADAMW), **constants)
        results[f"apply {name}"] = facts(applied)
        results[f"measure {name}"] = facts(
            build(measure_kernel, target, SHAPES=SHAPES, **constants)
        )
    constants = {**of_rule(ADAMW), "KINDS": KINDS["float32"], "FLAGS": FLAGS}
    fused = build(apply_kernel, target, fusion=True, **constants)
    results["apply contracted"] = facts(fused)
    results["plan"] = facts(build(plan_kernel, target, SHAPES=SHAPES, FLAGS=0))
    print(json.dumps(results))


if __name__ == "__main__":
    if sys.argv[1].startswith("--"):
        import sweeping

        sys.exit(sweeping.main())
    main(*sys.argv[1:])
