"""Steps of the compiled kernels in a weak memory: blocks mixed at random, apply before plan's end.

Every option with every other, at a seed each; the result is the reference's, and no two accesses
race.
"""

import pytest
from lib.options import random_options
from lib.runs import DTYPES, assert_same_run, random_problem, run
from lib.weak_memory import run_weak

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
