"""A schedule does what setting the number by hand before every step does, bit for bit."""

import pytest
import torch
from lib.rules_for_steps import ADAMW, RULES
from lib.runs import (
    DTYPES,
    FEW,
    SMALL,
    advance,
    assert_as_reference,
    assert_same_contents,
    assert_same_run,
    contents,
    random_problem,
    run,
    shorter,
    start,
)

from lrfused import schedules as S

STEPS = 40
LR = S.warmup_cosine(1e-2, warmup_steps=10, total_steps=STEPS, end=1e-4)
CORRECTIONS = ({"bias_correction": "power"}, {"bias_correction": "product"})
THRESHOLDS = {
    "max_grad_norm": S.exponential(3.0, 0.03, STEPS),
    "clip_value": S.linear(1.0, 0.05, STEPS),
    "agc": S.cosine(0.5, 0.01, STEPS),
}


def alone_and_together(names):
    """Each name in a list by itself, and all in one."""
    return [[name] for name in names] + [list(names)]


def number(value, step):
    """What to write by hand."""
    if isinstance(value, tuple):
        return tuple(part(step) for part in value)
    return value(step)


def in_groups(rule):
    """The schedules of all hyperparameters of groups."""
    return {"lr": LR, **rule.scheduled}


OF_RULES = [
    pytest.param(
        name, names, correction, id="-".join([name, "+".join(names), *correction.values()])
    )
    for name, rule in RULES.items()
    for names in alone_and_together(in_groups(rule))
    for correction in (CORRECTIONS if rule is ADAMW else ({},))
]


@pytest.mark.parametrize(("rule", "names", "correction"), OF_RULES, indirect=["rule"])
def test_numbers_written_to_the_groups(rng, backend, rule, names, correction):
    problem = random_problem(rng, SMALL, shorter(backend, STEPS), DTYPES)
    scheduled = {name: in_groups(rule)[name] for name in names}
    first = {name: number(value, 0) for name, value in scheduled.items()}
    by_hand = start(problem.values, backend, **correction, **first)
    for step, gradients in enumerate(problem.gradients):
        for name, value in scheduled.items():
            by_hand.opt.param_groups[0][name] = number(value, step)
        advance(by_hand, gradients)
    got = run(problem, backend, **correction, **scheduled)
    assert_same_contents(contents(got), contents(by_hand))
    assert [m["lr"] for m in got.metrics] == [m["lr"] for m in by_hand.metrics]


@pytest.mark.parametrize("names", alone_and_together(THRESHOLDS), ids="+".join)
def test_thresholds_written_to_tensors(rng, backend, rule, names):
    problem = random_problem(rng, SMALL, shorter(backend, STEPS), DTYPES, exponents=(-1, 1))
    scheduled = {name: THRESHOLDS[name] for name in names}
    tensors = {name: torch.zeros((), dtype=torch.float64) for name in names}
    by_hand = start(problem.values, backend, **tensors)
    for step, gradients in enumerate(problem.gradients):
        for name, value in scheduled.items():
            tensors[name].fill_(value(step))
        advance(by_hand, gradients)
    got = run(problem, backend, **scheduled)
    assert got.metrics == by_hand.metrics
    assert_same_contents(contents(got), contents(by_hand))


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_constant_threshold_is_a_constant_schedule(rng, backend, rule, name):
    problem = random_problem(rng, SMALL, shorter(backend, 10))
    got = run(problem, backend, **{name: S.constant(0.1)})
    assert_same_contents(contents(got), contents(run(problem, backend, **{name: 0.1})))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32]
)
def test_an_input_of_any_dtype(rng, backend, rule, dtype):
    """The same as the number that the tensor holds."""
    problem = random_problem(rng, SMALL, 5)
    x = torch.tensor(3, dtype=dtype) if not dtype.is_floating_point else torch.tensor(2.7).to(dtype)
    got = run(problem, backend, weight_decay=S.input(x, "x") / 8)
    want = run(problem, backend, weight_decay=float(x) / 8)
    got_contents, want_contents = contents(got), contents(want)
    assert_same_contents(got_contents, want_contents)


def test_inputs_of_several_dtypes_of_which_one_changes(rng, kernels, rule):
    """Inputs of all dtypes in one expression, one of them filled anew between two steps."""
    dtypes = (*DTYPES, torch.int64, torch.int32)
    inputs = [torch.tensor(float(rng.numpy.integers(1, 9))).to(dtype) for dtype in dtypes]
    lr = sum((S.input(t, f"x{i}") for i, t in enumerate(inputs)), S.constant(1.0)) * 1e-4
    problem = random_problem(rng, FEW, 3)
    got, want = (start(problem.values, b, lr=lr) for b in (kernels, "reference"))
    for gradients in problem.gradients:
        for made in (got, want):
            advance(made, gradients)
        inputs[0].add_(1)
    assert_same_run(got, want)


def test_a_clip_value_beside_a_norm(rng, kernels, rule):
    """measure evaluates the program of clip_value before plan does."""
    problem = random_problem(rng, FEW, 4)
    schedule = S.select(S.less(S.step, 2), 0.3, S.cos(S.step) ** 2 + 1e-3)
    assert_as_reference(problem, kernels, clip_value=schedule, max_grad_norm=0.2)


def test_the_step_of_a_schedule_is_the_count_of_completed_steps(rng, backend):
    lr = S.table([0.5, 0.25, 0.125, 0.0625])
    problem = random_problem(rng, [(3,)], 4, none=0.0)
    got = run(problem, backend, lr=lr)
    assert [m["lr"] for m in got.metrics] == [[lr(t)] for t in range(4)]
    assert got.opt.param_groups[0]["lr"] == lr(4)  # what the next step will use
