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
from lrfused.rules import RULES
from lrfused.schedules.bytecode import ARITY, Op
from lrfused.schedules.payloads import INPUT_DTYPES
from lrfused.settings.options import DecayMode, GroupOptions
from lrfused.settings.slots import Slot

if not is_there:
    pytest.skip("Triton is not installed or not interpreted", allow_module_level=True)

import triton
import triton.language as tl

from lrfused.backends.triton import shapes
from lrfused.backends.triton.program import evaluate, evaluate_all

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


# The scalars of rules


@triton.jit
def scalars_kernel(
    row,
    counts,
    variables,
    results,
    samples,
    digits,
    SHAPES: tl.constexpr,
    VARIABLES: tl.constexpr,
    RESULTS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    lane = tl.arange(0, WIDTH)
    of_lanes = ()
    for i in tl.static_range(VARIABLES):
        of_lanes = of_lanes + (tl.load(variables + i * WIDTH + lane),)
    rows = row + lane * 0
    count = tl.load(counts + lane).to(tl.float64)
    values = evaluate_all(SHAPES, 3, rows, lane >= 0, count, of_lanes, samples, digits)
    for i in tl.static_range(RESULTS):
        tl.store(results + i * WIDTH + lane, values[i])


def all_options(rule):
    """Whatever a group of the rule may be told, one thing after the other."""
    keys = [*rule.switches, *(slot.key for slot in rule.presence)]
    least = {name: choices[0] for name, choices in rule.arguments.items()}
    most = {name: choices[-1] for name, choices in rule.arguments.items()}
    for mode in rule.decay_modes:
        yield GroupOptions(decay_mode=mode, of_rule={**dict.fromkeys(keys, False), **least})
    for key in keys:
        yield GroupOptions(of_rule={**{x: x == key for x in keys}, **least})
    yield GroupOptions(
        decay_mode=DecayMode.LR_RATIO, peak_lr=3.0, of_rule={**dict.fromkeys(keys, True), **most}
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_scalars_of_rules_are_lanes(rng, rule):
    """Also those of counts that no power but repeated squaring is to see."""
    size = len(Slot) + len(rule.carried)
    counts = rng.numpy.integers(1, 2 ** rng.numpy.integers(1, 53, WIDTH))
    counts[:3] = 1, 2, 2**53 - 2**29
    variables = rng.numpy.choice([0.0, 0.5, 0.9, 0.999, 1.0], (size, WIDTH))
    for options in all_options(rule):
        program = rule.program(options)
        flat = shapes.arrange([], rule, [options])
        results = torch.full((len(program.results), WIDTH), torch.nan, dtype=torch.float64)
        inputs = (torch.tensor(flat.rows), torch.tensor(counts), torch.tensor(variables))
        samples = torch.tensor([*flat.samples, 0.0], dtype=torch.float64)
        with np.errstate(all="ignore"):
            scalars_kernel[(1,)](
                *inputs, results, samples, DIGITS, flat.flat, size, len(results), WIDTH
            )
        want = program.evaluate_all(counts.astype(np.float64), tuple(variables))
        for got, value in zip(results.numpy(), want, strict=True):
            assert_same_bits(got, np.broadcast_to(value, got.shape), of=(options,))


def test_groups_of_a_rule_that_differ_in_numbers_are_lanes_of_one_shape():
    for rule in RULES:
        base = next(all_options(rule))
        ratio = {"decay_mode": DecayMode.LR_RATIO, "of_rule": base.of_rule}
        groups = [
            GroupOptions(**ratio, peak_lr=peak, start_step=i) for i, peak in enumerate((1, 2))
        ]
        programs = shapes.arrange([], rule, [*groups, base])
        assert [lanes for _, lanes in programs.spans] == [2, 1]
