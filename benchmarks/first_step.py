"""How long the first step takes, with everything that is compiled for it, beside the later ones.

    python benchmarks/first_step.py [--device cpu]

For each backend a process of its own; Triton's cache is empty at first and full at the second run.
Prints a line of JSON for each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import torch
from kernels import wait

import lrfused
from lrfused import schedules
from lrfused.backends.registry import BACKENDS

SIZES = (65537, 1000, 64)
STEPS = 20


def measure(backend: str, device: str) -> dict[str, float]:
    """Seconds of the first step, of one after it with another schedule, and of a later one."""
    torch.zeros(1, device=device)
    wait()
    found = {}
    short = schedules.warmup_cosine(1e-3, 10, 100)
    for name, lr in (("first", short), ("another schedule", schedules.wsd(1e-3, 5, 10, 20))):
        params = [torch.nn.Parameter(torch.randn(size, device=device)) for size in SIZES]
        for p in params:
            p.grad = torch.randn_like(p)
        opt = lrfused.AdamW(params, lr=lr, max_grad_norm=1.0, backend=backend)
        found[name] = _seconds(opt.step)
    found["later"] = min(_seconds(opt.step) for _ in range(STEPS))
    return found


def _seconds(call) -> float:
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", help="measure this one here; without it all, in processes")
    options = parser.parse_args()
    if options.backend:
        print(json.dumps(measure(options.backend, options.device)))
        return 0
    names = ("cpu",) if options.device == "cpu" else ("cuda", "triton")
    with tempfile.TemporaryDirectory() as cache:
        codes = [
            _process(name, options.device, cache, run)
            for name in names
            if BACKENDS[name].why_unavailable() is None
            for run in ("empty cache", "full cache")
        ]
    return max(codes, default=0)


def _process(backend: str, device: str, cache: str, run: str) -> int:
    print(f"{backend}, {run}: ", end="", flush=True)
    command = [sys.executable, __file__, "--device", device, "--backend", backend]
    return subprocess.run(command, env={**os.environ, "TRITON_CACHE_DIR": cache}).returncode


if __name__ == "__main__":
    sys.exit(main())
