"""The Triton evaluator of programs equals the NumPy one bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lib.interpreting import is_there
from lib.programs import single
from lib.random_schedules import SPECIAL, input_values, schedules, steps
from lib.schedule_values import assert_same_bits

from lrfused import schedules as S
from lrfused.numerics import elementary
from lrfused.schedules.bytecode import ARITY, Op
from lrfused.schedules.payloads import INPUT_DTYPES
from lrfused.settings.slots import Slot

if not is_there:
    pytest.skip("Triton is not installed or not interpreted", allow_module_level=True)

import triton
import triton.language as tl

from lrfused.backends.triton import shapes
from lrfused.backends.triton.program import evaluate

WIDTH = 64
DIGITS = torch.from_numpy(elementary.TWO_OVER_PI.astype(np.int64))


@triton.jit
def kernel(
    rows, steps, results, samples, digits, count, stride, SHAPES: tl.constexpr, WIDTH: tl.constexpr
):
    lane = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    present = lane < count
    step = tl.load(steps + lane, mask=present, other=0.0)
    value = evaluate(SHAPES, 3, rows + lane * stride, present, step, samples, digits)
    tl.store(results + lane, value, mask=present)


class Data:
    """Stands for a schedule: a program and no inputs."""

    def __init__(self, program):
        self.program, self.inputs = program, ()


def in_triton(schedule, at):
    """A schedule's values, each step a lane."""
    programs = shapes.arrange([(0, Slot.LR, schedule)])
    rows = torch.tensor([programs.rows] * len(at), dtype=torch.int64)
    samples = torch.tensor([*programs.samples, 0.0], dtype=torch.float64)
    at = torch.tensor(at, dtype=torch.float64)
    results = torch.full_like(at, torch.nan)
    grid = (-(-len(at) // WIDTH),)
    with np.errstate(all="ignore"):
        kernel[grid](
            rows, at, results, samples, DIGITS, len(at), rows.shape[1], programs.flat, WIDTH
        )
    return results.numpy()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(schedule=schedules(), at=st.lists(steps, min_size=1, max_size=70))
def test_evaluators_agree_on_random_expressions(schedule, at):
    want = schedule.program.evaluate(np.array(at, dtype=np.float64), input_values(schedule))
    assert_same_bits(in_triton(schedule, at), want, of=(at,))


@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name)
def test_evaluators_agree_on_every_operation_and_special_value(rng, op):
    random_bits = rng.numpy.integers(0, 2**64, 60, dtype=np.uint64).view(np.float64)
    x = np.concatenate([SPECIAL, random_bits])
    some = rng.numpy.choice(SPECIAL, 12, replace=False).tolist()
    for y in some if ARITY[op] > 1 else [None]:
        operands = () if y is None else (y, -0.0, 7.0)[: ARITY[op] - 1]
        program = single(op, *operands, table=[1.5, -2.5, 0.0, -0.0, 4e-310])
        assert_same_bits(in_triton(Data(program), x.tolist()), program.evaluate(x), of=(x,))


@pytest.mark.parametrize("dtype", INPUT_DTYPES)
def test_inputs_of_every_dtype(rng, dtype):
    tensor = torch.tensor(rng.numpy.uniform(-100, 100), dtype=torch.float64).to(dtype)
    schedule = S.input(tensor, "x") / 3 + S.step
    assert_same_bits(in_triton(schedule, [0, 5]), [schedule(0), schedule(5)])


def test_programs_that_differ_in_their_constants_are_lanes_of_one_shape():
    peaks = [S.warmup_cosine(10.0**-k, 10 + k, 100) for k in range(1, 9)]
    programs = shapes.arrange([(g, Slot.LR, peak) for g, peak in enumerate(peaks)])
    assert programs.flat[0] == 1
    assert [lanes for _, lanes in programs.spans] == [8]
