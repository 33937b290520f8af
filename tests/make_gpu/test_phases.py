"""The phases of a step are launched and timed apart; CUDA is emulated, Triton interpreted."""

import time

import lib.benchmarks  # noqa: F401
import pytest
import torch
from lib.emulating import cuda, emulated, emulation  # noqa: F401
from lib.interpreting import interpreted
from lib.runs import assert_same_bits

# isort: split
import gpu_phases

SHAPES = ((7, 30), (5,), (3, 2, 2))


class Seconds:
    """Marks of the host, which an emulated device is."""

    def begin(self):
        self.begun = True

    def mark(self):
        return time.perf_counter()

    def between(self, begin, end):
        assert self.begun and end >= begin
        return end - begin


@pytest.fixture(
    params=[pytest.param("cuda", marks=emulated), pytest.param("triton", marks=interpreted)]
)
def backend(request):
    if request.param == "cuda":
        request.getfixturevalue("cuda")
    return request.param


@pytest.mark.parametrize("name", gpu_phases.CASES)
def test_every_part_of_a_step_is_timed(backend, name):
    found = gpu_phases.measured(name, backend, "cpu", 1e9, Seconds(), SHAPES, rounds=2)
    parts = {"measure", "plan", "apply", "measure and plan", "whole"}
    assert set(found["seconds"]) == parts and all(found["seconds"].values())
    read = 2 if "agc" in name else 1
    size = (2 if "bfloat16" in name else 4) * 227
    moved = (read + 7) * size
    assert found["of_copy"]["whole"] == pytest.approx(moved / found["seconds"]["whole"] / 1e9)
    assert all(part in gpu_phases.line(found) for part in parts)


def test_phases_apart_are_the_step(backend):
    """Three steps of a round have the bits of three steps of the optimizer."""
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        _, options, _ = gpu_phases.CASES["unscale and clip, float32"]
        made.append(gpu_phases.optimizer_of(SHAPES, torch.float32, options, "cpu", backend))
    apart, whole = made
    gpu_phases.phase_seconds(apart, Seconds(), rounds=1)
    for _ in range(3):
        whole.step()
    for p, q in zip(*(opt.param_groups[0]["params"] for opt in made), strict=True):
        assert_same_bits(p, q)
    assert apart.metrics()["steps"] == whole.metrics()["steps"] == 4
