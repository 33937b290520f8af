"""Takes out one barrier after the other; a process of its own, because memory may be corrupted.

Usage: barriers.py MODULE: prints JSON, of each barrier (file:line; "": none) whether one of RUNS
runs did not end as the reference.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lib.emulation_build import Emulation
from lib.runs import assert_same_run, random_problem, run

from lrfused import native
from lrfused import schedules as S

RUNS = 6
PATIENCE = 3.0  # seconds of computing: without a barrier a loop may have no end


GROUPS = (
    {"clip_value": S.linear(0.01, 0.02, 5), "lr": S.linear(0.1, 0.2, 5)},
    {"clip_value": S.linear(0.5, 0.2, 5), "weight_decay": 0.3},
)


def everything(rng):
    """What needs nearly every barrier: bounds, factors, records that differ from block to block."""
    problem = random_problem(rng, [(70000,), (700,), (130, 2), (3,), (1100,), (64,)], 2, none=0.0)
    return problem, {"groups": GROUPS, "agc": 0.01, "max_grad_norm": 0.3, "loss_scale": 3.0}


def without_measure(rng):
    """Where nobody but plan evaluates the bounds of clips."""
    return random_problem(rng, [(3,), (64,), (5,), (700,)], 4, none=0.0), {"groups": GROUPS}


def ends_wrong(problem, options, want):
    """Whether a run in a child of this process ends otherwise, or not at all."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        assert_same_run(run(problem, "cuda", **options), want)
    except (AssertionError, RuntimeError, pytest.fail.Exception):
        os._exit(1)
    os._exit(0)


def main(path):
    torch.set_num_threads(1)
    cuda = Emulation(Path(path))
    native.cuda = cuda.module
    seed = int.from_bytes(os.urandom(4), "little")
    generators = (np.random.default_rng(seed), torch.Generator().manual_seed(seed))
    rng = SimpleNamespace(numpy=generators[0], torch=generators[1])
    cases = []
    for problem, options in (everything(rng), without_measure(rng)):
        cases.append((problem, options, run(problem, **options)))
        run(problem, "cuda", **options)
    wrong = {}
    for place in ["", *cuda.barriers()]:
        cuda.drop_barrier(place)
        wrong[place] = False
        for i in range(RUNS):
            cuda.seed(seed + i)
            wrong[place] = wrong[place] or any(ends_wrong(*case) for case in cases)
    print(json.dumps(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
