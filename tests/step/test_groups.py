"""What groups and counts do: averages over micro-batches, start_step, None gradients."""

import math

import pytest
import torch
from lib.runs import (
    SMALL,
    advance,
    assert_same_bits,
    assert_same_contents,
    assert_same_run,
    assert_within,
    contents,
    numpy_of,
    random_problem,
    run,
    start,
)

from lrfused import schedules as S

LATE = ({}, {"start_step": 4})


def of(run, index):
    """What belongs to one parameter, gradients apart."""
    tail = f"[{index}]"
    return {k: v for k, v in contents(run).items() if k.endswith(tail) and not k.startswith("grad")}


@pytest.mark.parametrize("steps", [2, 4, 64])
def test_micro_batches_are_averaged_exactly_by_powers_of_two(rng, backend, rule, steps):
    problem = random_problem(rng, SMALL, 8)
    averages = problem.map_gradients(lambda g: g / steps)
    summed = run(problem, backend, accumulation_steps=steps, max_grad_norm=0.3)
    averaged = run(averages, backend, max_grad_norm=0.3)
    assert summed.metrics[-1]["grad_norm"] == averaged.metrics[-1]["grad_norm"]
    for i in range(len(SMALL)):
        assert_same_contents(of(summed, i), of(averaged, i))


def test_micro_batches_are_averaged(rng, backend, rule):
    """By 3 within rounding: 1e-12 in float64."""
    problem = random_problem(rng, SMALL, 20, (torch.float64,))
    averages = problem.map_gradients(lambda g: g / 3)
    summed = run(problem, backend, accumulation_steps=3)
    for a, b in zip(summed.params, run(averages, backend).params, strict=True):
        assert_within(numpy_of(a), numpy_of(b), 1e-12, numpy_of(b.abs() + 1))


def test_a_group_is_left_alone_until_its_start_step(rng, backend, rule):
    """Neither norm, count nor values; afterwards it is as if it had just been made."""
    problem = random_problem(rng, [(5, 13), (65,), (3,), (7,)], 12, none=0.0, exponents=(0, 1))
    options = {"max_grad_norm": 0.5, "lr": S.linear(0.01, 0.001, 12)}
    staged = start(problem.values, backend, groups=LATE, **options)
    alone = start(problem.values[::2], backend, **options)
    for gradients in problem.gradients[:4]:
        advance(staged, gradients)
        advance(alone, gradients[::2])
        assert staged.metrics[-1]["grad_norm"] == alone.metrics[-1]["grad_norm"]
    for mine, theirs in ((0, 0), (2, 1)):
        assert_same_bits(staged.params[mine], alone.params[theirs])
    for i in (1, 3):
        assert_same_bits(staged.params[i], problem.values[i])
        state = staged.opt.state.get(staged.params[i], {})
        assert all(not torch.any(value) for value in state.values())
    for gradients in problem.gradients[4:]:
        advance(staged, gradients)
    assert contents(staged)["counts"].tolist() == [12, 12, 8, 8]  # group by group
    for i, p in enumerate(staged.params):
        assert not torch.equal(p, problem.values[i])


def test_a_late_group_starts_with_its_own_bias_correction(rng, backend):
    """At its first step an Adam update is lr * sign(g), whatever the schedule's step is."""
    problem = random_problem(rng, [(5,), (65,)], 5, (torch.float64,), none=0.0)
    run = start(problem.values, backend, groups=LATE, lr=0.01, weight_decay=0.0, eps=0.0)
    for gradients in problem.gradients:
        advance(run, gradients)
    want = problem.values[1] - 0.01 * problem.gradients[4][1].sign()
    assert_within(numpy_of(run.params[1]), numpy_of(want), 1e-14, 1 + numpy_of(want.abs()))


def test_a_late_groups_gradient_is_not_checked_before_its_start(rng, backend, rule):
    problem = random_problem(rng, [(5,), (65,)], 6, none=0.0)
    for gradients in problem.gradients[:4]:
        gradients[1][64] = torch.nan
    got = run(problem, backend, groups=LATE, nonfinite="raise", max_grad_norm=1.0)
    assert got.opt.metrics()["steps"] == 6
    assert torch.isfinite(got.params[1]).all()


@pytest.mark.parametrize("clip", [{}, {"norm_type": math.inf, "clip_value": 0.3}], ids=["2", "inf"])
def test_what_takes_no_part_decides_nothing(rng, kernels, rule, clip):
    """By a scale of 0 gradients become infinite, and what has none would be nan."""
    made = []
    problem = random_problem(rng, [(5,), (65,), (3,)], 2, none=0.0)
    options = {"max_grad_norm": 1.0, "groups": LATE, **clip}
    for backend in (kernels, "reference"):
        made.append(start(problem.values, backend, **options))
        advance(made[-1], problem.gradients[0])
        made[-1].opt.grad_scale = torch.tensor(0.0)
        advance(made[-1], [*problem.gradients[1][:2], None])
    assert_same_run(*made)
    assert made[0].metrics[-1]["grad_norm"] == math.inf


def test_a_step_whose_only_gradients_are_in_a_late_group_is_not_skipped(rng, backend, rule):
    problem = random_problem(rng, [(5,), (65,)], 1)
    made = start(problem.values, backend, groups=LATE, nonfinite="skip")
    made.opt.grad_scale = torch.tensor(0.0)
    advance(made, [None, problem.gradients[0][1]])
    assert made.metrics[-1]["skipped_steps"] == 0 and made.metrics[-1]["steps"] == 1


def test_a_late_groups_hyperparameters_may_be_unusable_before_its_start(rng, backend):
    problem = random_problem(rng, [(5,), (65,)], 6, none=0.0)
    late = {
        "start_step": 4,
        "lr": 0.01 / S.step,
        "weight_decay": 0.0,
        "eps": S.sqrt(S.step - 3),
        "clip_value": S.sqrt(S.step - 4),
    }
    got = run(problem, backend, groups=({}, late), max_grad_norm=1.0)
    assert torch.isfinite(got.params[1]).all()


def test_a_late_groups_schedule_follows_the_common_step(rng, backend, rule):
    problem = random_problem(rng, [(5,), (65,)], 6, none=0.0)
    lr = S.linear(0.0, 0.01, 10)
    got = run(problem, backend, groups=({}, {"start_step": 4, "lr": lr}))
    assert [m["lr"][1] for m in got.metrics] == [lr(t) for t in range(6)]
    relative = run(problem, backend, groups=({}, {"start_step": 4, "lr": lr.shifted(4)}))
    assert relative.metrics[5]["lr"][1] == lr(1)


def test_each_parameter_counts_its_own_updates(rng, backend, rule):
    problem = random_problem(rng, [(5,), (65,), (3,)], 30, none=0.5)
    got = run(problem, backend)
    updates = [
        sum(g is not None for g in of_one) for of_one in zip(*problem.gradients, strict=True)
    ]
    assert contents(got)["counts"].tolist() == updates
    if got.opt.rule.counts:
        assert [float(got.opt.state[p]["step"]) for p in got.params] == updates
    assert got.opt.metrics()["steps"] == 30


def test_counts_are_exact_where_float32_is_not(rng, backend):
    """state["step"] shows the nearest float32 of a whole number."""
    problem = random_problem(rng, [(5,)], 5, none=0.0)
    made = start(problem.values, backend)
    advance(made, problem.gradients[0])
    made.opt.state[made.params[0]]["step"].fill_(2.0**24)
    for gradients in problem.gradients[1:4]:
        advance(made, gradients)
    assert contents(made)["counts"].tolist() == [2**24 + 3]
    assert float(made.opt.state[made.params[0]]["step"]) == 2.0**24 + 4


def test_a_parameter_without_gradient_does_not_move(rng, backend, rule):
    problem = random_problem(rng, [(5,), (65,)], 3, none=0.0)
    got = start(problem.values, backend, max_grad_norm=1.0)
    advance(got, problem.gradients[0])
    before = of(got, 1)
    advance(got, [problem.gradients[1][0], None])
    assert_same_contents(of(got, 1), before)


def test_a_call_without_any_gradient_does_nothing(rng, backend, rule):
    problem = random_problem(rng, [(5,), (65,)], 2, none=0.0)
    got = start(problem.values, backend, lr=S.linear(1, 0, 5))
    advance(got, problem.gradients[0])
    before, numbers = contents(got), got.opt.metrics()
    got.opt.zero_grad()
    got.opt.step()
    after = contents(got)
    assert_same_contents(after, {k: v for k, v in before.items() if k in after})
    assert got.opt.metrics() == numbers
