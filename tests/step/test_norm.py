"""The norm: accurate, of a fixed order, never falsely infinite or zero."""

import math

import numpy as np
import pytest
import torch
from lib.runs import EDGES, advance, assert_same_bits, random_problem, run, start

from lrfused.numerics.norm import combine, sums_of_squares

SIZES = [0, 1, 2, 63, 64, 65, 511, 512, 513, 1024, 20000, 65535, 65536, 65537, 131073]
DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


def random_vector(rng, size, dtype, exponents=(0, 0)):
    """Normal numbers times random powers of ten."""
    powers = 10.0 ** rng.numpy.uniform(*exponents, size)
    return torch.from_numpy(rng.numpy.standard_normal(size) * powers).to(dtype)


# The definition, number by number: an own reading of the docstring of lrfused/numerics/norm.py.


def neighbours_first(numbers):
    """(0 + 1) + (2 + 3), and so on."""
    while len(numbers) > 1:
        numbers = [a + b for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return numbers[0]


def slow_column(numbers):
    """The squares of a column, in its own type if that is safe, else in float64."""
    with np.errstate(over="ignore", under="ignore"):
        total = neighbours_first([x * x for x in numbers])
    if isinstance(total, np.float32) and not 2.0**-100 <= total <= 2.0**127:
        total = neighbours_first([np.float64(x) * np.float64(x) for x in numbers])
    return np.float64(total)


def slow_chunk(chunk):
    """128 blocks of 8 rows of 64 columns; block b enters the lanes of b modulo 32."""
    padded = np.zeros(65536, dtype=chunk.dtype)
    padded[: len(chunk)] = chunk
    lanes = [[np.float64(0.0)] * 64 for _ in range(32)]
    for b, block in enumerate(padded.reshape(128, 8, 64)):
        if block.any():  # zeros change no sum
            for c in range(64):
                lanes[b % 32][c] = lanes[b % 32][c] + slow_column(list(block[:, c]))
    return neighbours_first([lane for block_lanes in lanes for lane in block_lanes])


def slow_sums(x):
    """One sum for each chunk."""
    return [slow_chunk(x[start : start + 65536]) for start in range(0, len(x), 65536)]


def slow_combine(sums):
    """256 chunks are a span; span i enters lane i modulo 256."""
    lanes = [np.float64(0.0)] * 256
    for i, first in enumerate(range(0, len(sums), 256)):
        span = [np.float64(value) for value in sums[first : first + 256]]
        span += [np.float64(0.0)] * (256 - len(span))
        lanes[i % 256] = lanes[i % 256] + neighbours_first(span)
    return neighbours_first(lanes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_the_order_is_the_documented_one(rng, size, dtype):
    """With magnitudes on both sides of what a float32 square can hold."""
    x = random_vector(rng, size, dtype, exponents=(-30, 30) if size % 2 else (-2, 2))
    want = torch.tensor(slow_sums(x.numpy()), dtype=torch.float64)
    assert_same_bits(sums_of_squares(x[None])[0], want)


def test_rows_are_summed_each_for_itself(rng):
    x = random_vector(rng, 5 * 70001, torch.float32).view(5, 70001)
    assert_same_bits(sums_of_squares(x), torch.cat([sums_of_squares(row[None]) for row in x]))


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1000, 65537])
def test_chunks_are_combined_in_the_documented_order(rng, count):
    for _ in range(20):  # now and then another order gives the same sum
        sums = torch.from_numpy(rng.numpy.random(count))
        assert combine(sums) == slow_combine(sums.tolist())


@pytest.mark.parametrize("trial", range(2))
def test_a_step_measures_that_norm(rng, backend, trial):
    """Over all tensors in their order, also the many chunks of small tensors."""
    shapes = EDGES if trial else [(int(n),) for n in rng.numpy.integers(0, 9, 270)]
    problem = random_problem(rng, shapes, 1)
    sums = [slow_sums(g.reshape(-1).numpy()) for g in problem.gradients[0]]
    want = float(np.sqrt(slow_combine([x for chunks in sums for x in chunks])))
    assert run(problem, backend, always_measure=True).metrics[0]["grad_norm"] == want


# Accuracy


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize(
    # float32: a square and three additions, 4 roundings of 2^-24; float64: 3 + 4 + 11 + 8 of 2^-53
    ("dtype", "bound"),
    [(torch.float32, 4.01 * 2.0**-24), (torch.float64, 40 * 2.0**-53)],
)
def test_close_to_the_exact_sum(rng, dtype, bound, size):
    x = random_vector(rng, size, dtype, exponents=(-15, 15))
    exact = math.fsum(value * value for value in x.tolist())
    assert abs(combine(sums_of_squares(x[None])[0]) - exact) <= bound * exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 513, 70001])
@pytest.mark.parametrize("magnitude", [1e30, 3e38, 1e-30, 1e-38, 1e-40])
def test_nothing_overflows_or_vanishes_falsely(backend, magnitude, size, dtype):
    gradient = torch.full((size,), magnitude, dtype=dtype)
    made = start([torch.zeros(size, dtype=dtype)], backend, always_measure=True, nonfinite="skip")
    advance(made, [gradient])
    norm, element = made.metrics[0]["grad_norm"], float(gradient[0])
    assert abs(norm - element * math.sqrt(size)) <= 1e-15 * norm
    assert made.metrics[0]["skipped_steps"] == 0
    assert made.metrics[0]["headroom"] == 65504.0 / element


# Detection


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("size", [1, 65, 513, 65537])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_one_element_that_is_not_finite_is_found(rng, backend, dtype, size, value):
    made = start([torch.zeros(size, dtype=dtype)], backend, nonfinite="skip")
    gradient = random_vector(rng, size, dtype)
    for place in {0, size // 2, size - 1}:
        spoiled = gradient.clone()
        spoiled[place] = value
        advance(made, [spoiled])
        assert made.metrics[-1]["consecutive_skips"] == 1
        advance(made, [gradient])
        assert made.metrics[-1]["consecutive_skips"] == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_largest_finite_numbers_are_finite(backend, dtype):
    largest = torch.full((600,), torch.finfo(dtype).max, dtype=dtype)
    made = start([torch.zeros_like(largest)], backend, nonfinite="skip")
    advance(made, [largest])
    assert made.metrics[0]["skipped_steps"] == 0
