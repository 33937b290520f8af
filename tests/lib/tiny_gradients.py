"""Gradients around the smallest normal number, and what share of them is tiny: by exponents."""

import numpy as np
import torch

from lib.runs import Problem

# Exponents of the smallest normal number, and the digits behind the point: IEEE 754, bfloat16.
SMALLEST = {torch.float64: -1022, torch.float32: -126, torch.bfloat16: -126, torch.float16: -14}
DIGITS = {torch.float64: 52, torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}


def with_tiny(rng, problem: Problem) -> Problem:
    """A problem with other gradients: zeros, and numbers around the smallest normal one."""

    def numbers(g):
        x = torch.randn(g.shape, generator=rng.torch, dtype=torch.float64)
        exponents = torch.randint(-12, 13, g.shape, generator=rng.torch) + SMALLEST[g.dtype]
        zeros = torch.rand(g.shape, generator=rng.torch) < 0.1
        return torch.where(zeros, 0.0, torch.ldexp(x, exponents.double())).to(g.dtype)

    return problem.map_gradients(numbers)


def tiny_share(problem: Problem, step: int) -> float:
    """Of all gradients of a step: zero or subnormal, in their dtype or that of the arithmetic."""
    pairs = zip(problem.values, problem.gradients[step], strict=True)
    return float(np.concatenate([_is_tiny(p, g) for p, g in pairs if g is not None]).mean())


def _is_tiny(p, g) -> np.ndarray:
    computed = torch.float64 if p.dtype == torch.float64 else torch.float32
    smallest = max(SMALLEST[g.dtype], SMALLEST[computed])
    numbers = g.to(computed).double().reshape(-1).numpy()
    _, exponents = np.frexp(numbers)  # of a significand in [0.5, 1)
    return (numbers == 0) | (np.isfinite(numbers) & (exponents - 1 < smallest))
