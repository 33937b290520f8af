"""Steps of the compiled kernels in a weak memory: blocks mixed at random, apply before plan's end.

Every option with every other, at a seed each; the result is the reference's, and no two accesses
race.
"""

import pytest
from lib.options import random_options
from lib.runs import DTYPES, assert_same_run, random_problem, run
from lib.weak_memory import run_weak

from ptx import machine, meant

SHAPES = [(5,), (65,), (3, 7), (200,)]  # some blocks, which all wait for the last
BATCHES, SEEDS = 8, 25


@pytest.mark.parametrize("batch", range(BATCHES))
def test_any_options_in_any_order(rng, cuda_ptx, rule, batch):
    for _ in range(SEEDS):
        options = random_options(rng)
        chosen = [SHAPES[i] for i in rng.numpy.permutation(len(SHAPES))[:3]]
        problem = random_problem(rng, chosen, 2, DTYPES, DTYPES)
        seed = int(rng.numpy.integers(2**63))
        got = run_weak(problem, cuda_ptx, "cuda", seed, {}, **options)
        assert_same_run(got, run(problem, **options))


# Each to compile takes seconds.
TRITON = [{"max_grad_norm": 1.0, "loss_scale": "dynamic"}, {"agc": 0.01, "nonfinite": "skip"}]


@pytest.mark.parametrize("options", TRITON, ids=["norm and scale", "by unit"])
def test_triton_in_any_order(rng, triton_ptx, options):
    for _ in range(SEEDS):
        problem = random_problem(rng, SHAPES[:3], 2, none=0.3)
        seed = int(rng.numpy.integers(2**63))
        got = run_weak(problem, triton_ptx, "triton", seed, {}, **options)
        assert_same_run(got, run(problem, **options))


@pytest.mark.parametrize("guard", ["tl.debug_barrier()", "tl.atomic_add("])
def test_triton_tickets_order_memory(rng, triton_ptx, guard):
    """Without barriers and order, who draws the last ticket may not see what others have stored."""
    problem = random_problem(rng, SHAPES[:3], 2)
    options = TRITON[0]
    run(problem, "triton", **options)  # compiled
    weakened = [
        line for one in triton_ptx.libraries for line in meant.lines_of(one, "tickets.py", guard)
    ]
    assert weakened
    with pytest.raises(machine.PtxError, match=r"a race|nobody has written"):
        for seed in range(SEEDS):
            run_weak(problem, triton_ptx, "triton", seed, {"weakened": weakened}, **options)
