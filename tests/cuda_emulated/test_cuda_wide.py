"""Apply as it is compiled for chips that read 32 bytes at once, emulated; others read 16."""

import pytest
import torch
from lib import emulation_build
from lib.emulating import emulated
from lib.runs import assert_as_reference, random_problem

from lrfused import native

pytestmark = emulated
MIXTURES = [
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.float64, torch.float64),
]
# Ends of what 256 threads do in a turn, of tiles, and of the 8 or 16 elements of a thread.
SIZES = [(7,), (16,), (4103,), (2048 + 8,), (8192,), (8192 + 2048 + 24,)]


@pytest.fixture(scope="module")
def module(request):
    cache = request.config.rootpath / ".pytest_cache" / "cuda_emulated"
    return emulation_build.Emulation(emulation_build.build(cache, "-DLRF_WIDEST=32")).module


@pytest.mark.parametrize("options", [{}, {"clip_value": 0.3}], ids=str)
@pytest.mark.parametrize(("dtype", "gradient_dtype"), MIXTURES, ids=str)
def test_as_the_reference(rng, rule, monkeypatch, module, dtype, gradient_dtype, options):
    monkeypatch.setattr(native, "cuda", module)
    problem = random_problem(rng, SIZES, 2, (dtype,), (gradient_dtype,))
    assert_as_reference(problem, "cuda", max_grad_norm=0.5, **options, **rule.largest)
    assert_as_reference(problem, "cuda", **options)


@pytest.mark.parametrize("bytes_off", [4, 16])
def test_memory_that_is_aligned_to_less(rng, monkeypatch, module, bytes_off):
    monkeypatch.setattr(native, "cuda", module)
    problem = random_problem(rng, [(4103,)], 2, none=0.0)

    def shifted(gradient):
        room = torch.zeros(gradient.numel() + 16)
        start = (-room.data_ptr() % 32 + bytes_off) // 4
        there = room[start : start + gradient.numel()]
        assert there.data_ptr() % 32 == bytes_off
        return there.copy_(gradient)

    assert_as_reference(problem.map_gradients(shifted), "cuda", max_grad_norm=0.5)
