"""Parameters and gradients that end where readable memory ends: kernels look ahead, not beyond."""

import ctypes
import math
import mmap
import sys

import pytest
import torch
from lib.runs import (
    assert_same_run,
    instruction_sets,
    needs_cpp,
    random_problem,
    run,
    start,
)

pytestmark = [
    needs_cpp,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mprotect"),
]

PAGE = mmap.PAGESIZE
SIZES = (1, 63, 65, 511, 513, 2047, 2049, 4097, 20_001, 65_537, 131_000)


def at_the_end(value: torch.Tensor) -> torch.Tensor:
    """A copy, behind which the first byte belongs to a page that nobody may read."""
    size = value.numel() * value.element_size()
    length = math.ceil(size / PAGE) * PAGE
    memory = mmap.mmap(-1, length + PAGE)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    end = ctypes.c_void_p(address + length)
    assert libc.mprotect(end, ctypes.c_size_t(PAGE), 0) == 0, ctypes.get_errno()
    # The tensor keeps the mapping alive.
    copy = torch.frombuffer(memory, dtype=value.dtype, count=value.numel(), offset=length - size)
    return copy.copy_(value)


@pytest.mark.parametrize("options", [{}, {"clip_value": 0.5}, {"agc": 0.1}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_nothing_beyond_the_end_of_a_page_is_read(rng, rule, dtype, options):
    problem = random_problem(rng, [(size,) for size in SIZES], 2, (dtype,), none=0.0)
    options = {"max_grad_norm": 0.1, **options}
    want = run(problem, **options)
    for name in instruction_sets("cpu"):
        got = start(problem.values, "cpu", name, **options)
        for param in got.params:
            param.data = at_the_end(param.data)
        for gradients in problem.gradients:
            for param, gradient in zip(got.params, gradients, strict=True):
                param.grad = at_the_end(gradient)
            got.opt.step()
            got.metrics.append(got.opt.metrics())
        assert_same_run(got, want)
