"""GPT-2's step on a GPU in its phases: measure, plan and apply apart, beside a copy of 1 GiB.

    python benchmarks/gpu_phases.py [--backend cuda,triton] [--out FILE]

The host's lag is hidden: the device sleeps while everything is launched. A phase lasts from the
event before it to the event behind it, and nothing of apply overlaps measure then; `whole` is the
step as it is, of two launches. The file is written after every case.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import result_files
import torch
from gpu_device import LAG_CYCLES, Gpu, HiddenLag
from kernels import wait
from machine import versions
from workloads import GPU_WORKLOADS, Shape

import lrfused
from lrfused import schedules
from lrfused.backends.work import APPLY, MEASURE, PLAN, WHOLE_STEP

ROUNDS = 30
# Launches that are a whole step together, so that counters and moments go on; what has no name is
# not kept.
STEPS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("measure", MEASURE), ("plan", PLAN), ("apply", APPLY)),
    (("measure and plan", MEASURE | PLAN), ("", APPLY)),
    (("whole", WHOLE_STEP),),
)
SCALED = {"loss_scale": lrfused.LossScale(init=1024.0), "max_grad_norm": 1.0}
# dtype, options, elements that measure reads of a parameter (g; and p where its norms count).
CASES = {
    "unscale and clip, float32": (torch.float32, SCALED, 1),
    "unscale and clip, bfloat16": (torch.bfloat16, SCALED, 1),
    "agc by unit, float32": (torch.float32, {"agc": 0.01}, 2),
}
APPLIED = 7  # p, g, m, v are read, p, m, v written


class Clock(Protocol):
    """Marks in the device's queue, and the seconds between two of them."""

    def begin(self) -> None: ...
    def mark(self) -> Any: ...
    def between(self, begin: Any, end: Any) -> float: ...


class Events:
    """CUDA's, behind a sleep in which the host gets ahead."""

    def begin(self) -> None:
        wait()
        torch.cuda._sleep(LAG_CYCLES)

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin: Any, end: Any) -> float:
        wait()
        return 1e-3 * float(begin.elapsed_time(end))


def optimizer_of(
    shapes: tuple[Shape, ...], dtype: torch.dtype, options: dict[str, Any], place: str, backend: str
) -> lrfused.AdamW:
    """After its first step, with gradients that stay."""
    params = [torch.nn.Parameter(torch.randn(shape, dtype=dtype, device=place)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    lr = schedules.warmup_cosine(1e-3, 10, 1000)
    opt = lrfused.AdamW(params, lr=lr, backend=backend, **options)
    opt.scale(torch.zeros((), device=place))
    opt.step()
    return opt


def phase_seconds(opt: lrfused.AdamW, clock: Clock, rounds: int) -> dict[str, float]:
    """Medians, by name of the part of a step."""
    table = opt._engine.table
    assert table is not None
    step: Any = table.run
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for launches in STEPS:
            call = step.prepare(table.work)
            clock.begin()
            marks = [clock.mark()]
            for _, phases in launches:
                step.run(call, phases)
                marks.append(clock.mark())
            for (name, _), begin, end in zip(launches, marks, marks[1:], strict=False):
                found.setdefault(name, []).append(clock.between(begin, end))
    return {name: median(values) for name, values in found.items() if name}


def measured(
    name: str,
    backend: str,
    place: str,
    copy: float,
    clock: Clock,
    shapes: tuple[Shape, ...],
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """One case; ``copy`` is how many bytes a second a copy reads and writes."""
    dtype, options, read = CASES[name]
    opt = optimizer_of(shapes, dtype, options, place, backend)
    seconds = phase_seconds(opt, clock, rounds)
    size = dtype.itemsize * sum(p.numel() for group in opt.param_groups for p in group["params"])
    accesses = {"measure": read, "apply": APPLIED, "whole": read + APPLIED}
    return {
        "case": name,
        "backend": backend,
        "seconds": seconds,
        "of_copy": {part: n * size / seconds[part] / copy for part, n in accesses.items()},
    }


def copy_rate(device: Gpu) -> float:
    """Bytes a second of dst.copy_(src), read and written."""
    source = torch.ones(device.bandwidth_elements, device=device.place)
    target = torch.empty_like(source)
    seconds = [device.seconds(lambda: target.copy_(source)) for _ in range(ROUNDS)]
    return 2 * source.numel() * source.element_size() / median(seconds)


def main() -> int:
    about = __doc__.splitlines()[0] if __doc__ else None
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--backend", default="cuda", help="cuda,triton")
    parser.add_argument("--out", type=Path, default=result_files.folder() / "gpu-phases.json")
    options = parser.parse_args()
    device = HiddenLag()
    copy = copy_rate(device)
    record: dict[str, Any] = {
        **result_files.head(),
        "kind": "phases",
        "machine": device.describe(),
        "versions": {**versions(), **device.versions()},
        "copy_gigabytes_per_second": 1e-9 * copy,
        "cases": [],
    }
    print(f"copy: {1e-9 * copy:.0f} GB/s")
    for backend in options.backend.split(","):
        for name in CASES:
            found = measured(name, backend, "cuda", copy, Events(), GPU_WORKLOADS["gpt2"].shapes)
            record["cases"].append(found)
            result_files.write(record, options.out)
            print(line(found), flush=True)
    record["finished"] = True
    result_files.write(record, options.out)
    return 0


def line(found: dict[str, Any]) -> str:
    """A case in words."""
    parts = [
        f"{part} {1e6 * seconds:.1f} us"
        + (f" ({found['of_copy'][part]:.0%} of copy)" if part in found["of_copy"] else "")
        for part, seconds in found["seconds"].items()
    ]
    return f"{found['case']}, {found['backend']}: {', '.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
