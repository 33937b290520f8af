"""Riders on every backend and for every optimizer: the bits of the reference."""

import pytest
import torch
from lib.options import poison, random_options
from lib.rules_for_steps import one_of
from lib.runs import (
    DTYPES,
    EDGES,
    SMALL,
    assert_same_run,
    instruction_sets,
    random_problem,
)

from lrfused import schedules as S

from .riding import random_masks, run_masked


def problem_for(rng, backend, steps=6):
    """Of all dtypes; interpreted kernels get small tensors."""
    shapes = SMALL if backend == "triton" else [*SMALL, *EDGES]
    chosen = [shapes[i] for i in rng.numpy.permutation(len(shapes))[:8]]
    if not any(torch.Size(shape).numel() for shape in chosen):
        chosen.append((65,))
    return random_problem(rng, chosen, steps, DTYPES, gradient_dtypes=DTYPES, none=0.3)


@pytest.mark.parametrize("trial", range(6))
def test_any_riders_with_any_options(kernels, rule, rng, trial):
    """Masks, averages and zeroed gradients, with inf and nan now and then."""
    options = random_options(rng)
    del options["masks"]
    options["ema_decay"] = one_of(rng)(0.0, 0.5, 1.0, S.linear(1.0, 0.0, 9))
    problem = poison(rng, problem_for(rng, kernels), 0.05)
    masks = random_masks(rng, problem.values)
    want = run_masked(problem, masks, **options)
    for name in instruction_sets(kernels):
        got = run_masked(problem, masks, kernels, instruction_set=name, **options)
        assert_same_run(got, want)
