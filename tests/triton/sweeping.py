"""Every kernel with each option once on and once off, for some targets and dtypes; no GPU needed.

Measure is compiled with AdamW's plan at its end; plan and apply with every rule's.

Usage: compiling.py --targets sm_80,sm_90,sm_100,gfx942 --dtypes float32,mix --json FILE

Writes a list of {kernel, target, dtypes, options, seconds, status, reason} as it comes. The status
is ok, failed, or unknown: a target that this release of Triton does not know. Ends with 1 if
anything failed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import compiling
import triton
from compiling import group_options, of_rule
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

from lrfused import schedules as S
from lrfused.backends.triton import shapes
from lrfused.backends.triton import words as w
from lrfused.backends.triton.apply import apply_kernel
from lrfused.backends.triton.kinds import kind
from lrfused.backends.triton.measure import measure_kernel
from lrfused.backends.triton.plan import plan_kernel
from lrfused.rules import ADAMW, RULES
from lrfused.settings.slots import Slot

F64, F32, BF16, F16 = 0, 1, 2, 3
# Codes of the parameter's dtype, its gradient's and those of two operands; a third is as the first.
DTYPES = {
    "float64": [(F64, F64, F64, F64)],
    "float32": [(F32, F32, F32, F32)],
    "bfloat16": [(BF16, BF16, BF16, BF16)],
    "float16": [(F16, F16, F16, F16)],
    "mix": [(F32, BF16, F32, F32), (BF16, F32, BF16, F32), (F16, F16, F32, F32), (F64, F32) * 2],
}
FLAGS = ("MEASURES", "CLIP_NORM", "INFINITY_NORM", "CHECKS_GRADIENTS", "RAISES")
FLAGS += ("ADVANCES_ON_SKIP", "DYNAMIC_SCALE", "WRITE_GRADS", "CLIPS_BEFORE_NORM", "ADAPTIVE")
SCHEDULED = [(0, slot, S.warmup_cosine(1e-3, 10, 100)) for slot in (Slot.LR, Slot.CLIP_VALUE)]
SCHEDULED += [(0, Slot.AGC, S.linear(0.1, 0.2, 100))]
OPTIONS = {  # flags; schedules; whether there are all operands, adaptive clip, value clip
    "all on": (sum(int(getattr(w, name)) for name in FLAGS), SCHEDULED, True),
    "all off": (int(w.MEASURES), [], False),
}
# Masks and averages, compiled by themselves: to every case above they would double its kinds. The
# two ends of a gradient do not go together.
ZEROED = int(w.MEASURES | w.RIDES | w.ZERO_GRADS)
RIDERS = {"riders": int(w.MEASURES | w.RIDES | w.WRITE_GRADS), "riders, zero_grads": ZEROED}


@triton.jit
def nothing(x):
    """What any target can do."""
    triton.language.store(x, 1)


def kinds(rule, dtypes, on, rides=False):
    """The compile-time constant of these dtypes; if it rides, with what has no gradient, too."""
    used = rule.operands_used(group_options(rule, on))
    found = []
    for p, g, first, second in DTYPES[dtypes]:
        riders = {"mask": True, "average": F64 if p == F64 else F32} if rides else {}
        found += kind(p, g, (first, second, first)[:used], on, on, **riders)
        found += kind(p, -1, (), **riders) if rides else ()
    return tuple(found)


def cases(dtypes):
    """(kernel, name of the dtypes, name of the options, constants)."""
    for rule in RULES:
        for options, (flags, schedules, on) in OPTIONS.items():
            programs = shapes.arrange(schedules, rule, [group_options(rule, on)]).flat
            everything = {"FLAGS": flags, "SHAPES": programs}
            alone = everything | {"FLAGS": flags | int(w.ONLY_MEASURES)}
            named = f"{rule.name}, {options}"
            if rule is ADAMW:
                for name in dtypes:
                    of_kinds = {"KINDS": kinds(rule, name, on)}
                    yield measure_kernel, name, named, everything | of_kinds
                # The same kernel with less at its end.
                of_kinds = {"KINDS": kinds(rule, dtypes[0], on)}
                yield measure_kernel, dtypes[0], f"{named}, several devices", alone | of_kinds
            without = 0 if on else int(w.MEASURES)
            yield plan_kernel, "", named, everything | {"FLAGS": flags & ~without}
            for name in dtypes:
                constants = {"FLAGS": flags, "KINDS": kinds(rule, name, on), **of_rule(rule)}
                yield apply_kernel, name, named, constants
    yield from riding(ADAMW, dtypes[-1])


def riding(rule, dtypes):
    """The cases of what rides in the pass; nothing of it is of the rule."""
    programs = shapes.arrange([], rule, [group_options(rule)]).flat
    of_kinds = {"KINDS": kinds(rule, dtypes, False, rides=True)}
    flags = {"FLAGS": RIDERS["riders"], "SHAPES": programs}
    yield measure_kernel, dtypes, "riders", of_kinds | flags
    for named, flags in RIDERS.items():
        yield apply_kernel, dtypes, named, {"FLAGS": flags} | of_kinds | of_rule(rule)


def stop_at_assembly():
    """Up to 3.4 the wheel cannot link for AMD."""
    backend = type(make_backend(GPUTarget("hip", "gfx942", 64)))
    add_stages = backend.add_stages

    def without_linking(self, stages, *arguments):
        add_stages(self, stages, *arguments)
        stages["hsaco"] = lambda source, metadata: b""

    backend.add_stages = without_linking
    backend.hash = lambda self: str(self.target)  # else of the linker's version


def why_unknown(target):
    """Why the target is not known to this Triton; None if it is. Some ways to say it end Python."""
    command = [sys.executable, compiling.__file__, "--targets", target, "--probe"]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
    return None if done.returncode == 0 else lines[-1].strip()


def probe(target):
    gpu = compiling.target_of(target)
    triton.compile(ASTSource(nothing, {"x": "*i64"}, {}, {}), target=gpu)


def compiled(kernel, target, dtypes, options, constants):
    """One entry of the list."""
    start, status, reason = time.monotonic(), "ok", ""
    try:
        made = compiling.build(kernel, target, **constants)
        reason = "as far as assembly" if made.asm.get("hsaco") == b"" else ""
    except Exception as error:
        status, reason = "failed", f"{type(error).__name__}: {error}"
    seconds = round(time.monotonic() - start, 2)
    return entry(kernel.fn.__name__, target, dtypes, options, seconds, status, reason)


def entry(kernel, target, dtypes, options, seconds, status, reason):
    return {
        "kernel": kernel,
        "target": target,
        "dtypes": dtypes,
        "options": options,
        "seconds": seconds,
        "status": status,
        "reason": reason,
    }


def sweep(targets, dtypes):
    """Entries as they come."""
    for target in targets:
        reason = why_unknown(target)
        if reason is not None:
            yield entry("", target, "", "", 0.0, "unknown", reason)
            continue
        for kernel, *case in cases(dtypes):
            yield compiled(kernel, target, *case)


def main():
    def names(text):
        return text.split(",")

    parser = argparse.ArgumentParser(prog="compiling.py")
    parser.add_argument("--targets", type=names, default=names("sm_80,sm_90,sm_100,gfx942"))
    parser.add_argument("--dtypes", type=names, default=list(DTYPES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--probe", action="store_true", help="only whether the targets are known")
    chosen = parser.parse_args()
    if tuple(map(int, triton.__version__.split(".")[:2])) <= (3, 4):
        stop_at_assembly()
    if chosen.probe:
        for target in chosen.targets:
            probe(target)
        return 0
    entries = []
    for found in sweep(chosen.targets, chosen.dtypes):
        entries.append(found)
        print(*(value for value in found.values() if value != ""), flush=True)
        if chosen.json:
            chosen.json.write_text(json.dumps(entries, indent=1) + "\n")
    return int(any(found["status"] == "failed" for found in entries))
