"""The Triton backend beside its numbers: launches, what is compiled, more than its lanes."""

import pytest
import torch
from lib.interpreting import is_there
from lib.options import LR
from lib.runs import (
    DTYPES,
    FEW,
    SMALL,
    advance,
    assert_as_reference,
    random_problem,
    run,
    start,
)

from lrfused import schedules as S

if not is_there:
    pytest.skip("Triton is not installed or not interpreted", allow_module_level=True)

import triton.language as tl

from lrfused.backends.triton import counts, hyperparameters
from lrfused.backends.triton import step as triton_step


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that are launched, with their compile-time constants."""
    seen = []

    def launch(kernel, programs, device, arguments, *constants, **how):
        seen.append((kernel.fn.__name__, constants))
        original(kernel, programs, device, arguments, *constants, **how)

    original = triton_step.launch
    monkeypatch.setattr(triton_step, "launch", launch)
    return seen


def test_more_groups_tensors_and_units_than_lanes(rng, rule, monkeypatch):
    """Each group with a schedule, each tensor with a count, each unit with a factor of its own."""
    for module in (hyperparameters, counts):
        monkeypatch.setattr(module, "WIDTH", tl.constexpr(16))
    problem = random_problem(rng, [(2,)] * 20 + [(20, 2)], 3, none=0.4)
    groups = tuple(
        {"lr": S.linear(0.1 / (i + 1), 0.01, 5 + i), "start_step": i % 2} for i in range(20)
    )
    assert_as_reference(problem, "triton", groups=groups, agc=0.05, max_grad_norm=0.1)


def test_more_chunks_than_lanes(rng):
    """Those of groups that have not started are zeros; one in eight takes part."""
    problem = random_problem(rng, [(2,)] * 265, 1)
    groups = ({"agc": 0.05}, *[{"start_step": 9}] * 7)
    assert_as_reference(problem, "triton", groups=groups, max_grad_norm=0.1)


# Launches, what is compiled


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["plan_kernel", "apply_kernel"]),
        ({"clip_value": 1.0}, ["plan_kernel", "apply_kernel"]),
        ({"max_grad_norm": 1.0}, ["measure_kernel", "apply_kernel"]),
        ({"loss_scale": "dynamic"}, ["measure_kernel", "apply_kernel"]),
        ({"agc": 0.1}, ["measure_kernel", "apply_kernel"]),
    ],
)
def test_two_launches_a_step_for_any_mixture(rng, rule, launches, options, names):
    problem = random_problem(rng, SMALL, 3, DTYPES, DTYPES)
    run(problem, "triton", groups=({}, {"weight_decay": 0.5}), **rule.largest, **options)
    assert [name for name, _ in launches] == names * 3


def test_empty_parameters_are_one_launch(rng, launches):
    made = start([torch.zeros(0, 3)], "triton", max_grad_norm=1.0)
    advance(made, [torch.zeros(0, 3)])
    assert [name for name, _ in launches] == ["plan_kernel"]
    assert made.opt.metrics()["grad_norm"] == 0.0


@pytest.mark.filterwarnings("ignore:param_groups")
@pytest.mark.filterwarnings("ignore:load_state_dict")
def test_numbers_are_data(rng, rule, launches):
    """Another peak, an override, a loaded counter: the same compile-time constants."""
    problem = random_problem(rng, FEW, 2)
    made = start(problem.values, "triton", lr=LR, max_grad_norm=1.0)
    advance(made, problem.gradients[0])
    made.opt.param_groups[0]["lr"] = 0.5
    advance(made, problem.gradients[1])
    other = S.warmup_cosine(3e-2, warmup_steps=7, total_steps=99, end=1e-5)
    another = start(problem.values, "triton", lr=other, max_grad_norm=0.3)
    another.opt.load_state_dict(made.opt.state_dict())
    advance(another, problem.gradients[0])
    first = launches[:2]
    assert [launches[i : i + 2] for i in (2, 4)] == [first, first]
