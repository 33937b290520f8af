"""Scheduled hyperparameters that are not usable: refused, nothing changed, usable again later."""

import math
import re

import pytest
import torch
from lib.rules_for_steps import RULES
from lib.runs import (
    advance,
    assert_same_contents,
    contents,
    host_numbers,
    random_problem,
    set_gradients,
    start,
    words,
)

from lrfused import schedules as S
from lrfused.settings.slots import Range

INF, NAN = math.inf, math.nan
LIMITS = ("clip_value", "agc", "max_grad_norm")
BAD = {
    Range.FINITE: (INF, -INF, NAN, 1e39),
    Range.BELOW_ONE: (INF, NAN, 1.0, -0.1),
    Range.LIMIT: (NAN, -INF, -0.1),
}


def of_rules(*ranges):
    """(rule, name) of each hyperparameter of these ranges, those that all have only once."""
    found = [
        (rule, slot.name.lower())
        for rule, made in RULES.items()
        for slot in made.optimizer.rule.hyperparameters
        if slot.range in ranges
    ]
    return found + [("adamw", name) for name in LIMITS if Range.LIMIT in ranges]


UNUSABLE = [
    (rule, name, value)
    for kind, values in BAD.items()
    for rule, name in of_rules(kind)
    for value in values
]


def argument(name, schedule):
    """The constructor's argument that holds a hyperparameter."""
    if name == "beta1":
        return {"betas": (schedule, 0.99)}
    return {"betas": (0.9, schedule)} if name == "beta2" else {name: schedule}


def in_second_group(name, schedule):
    """(groups, options) with the schedule in the second of two groups, if groups may have it."""
    made = argument(name, schedule)
    return (({}, {}), made) if name == "max_grad_norm" else (({}, made), {})


def without_error(made):
    """Everything that counts, without the gradients and the latched error."""
    kept = {k: v for k, v in contents(made).items() if not k.startswith("grad")}
    return {**kept, "counters": words(made)["integer words"][:6]}


@pytest.mark.parametrize(("rule", "name", "value"), UNUSABLE, indirect=["rule"])
def test_refused_by_name_then_usable_again(rng, backend, rule, name, value):
    """An input becomes bad before the third step, and good again."""
    problem = random_problem(rng, [(5, 13), (65,), ()], 6, none=0.0)
    x = torch.tensor(0.5, dtype=torch.float64)
    groups, options = in_second_group(name, S.input(x, "x"))
    made, fine = (start(problem.values, backend, groups=groups, **options) for _ in range(2))
    group = 0 if name == "max_grad_norm" else 1
    for step, gradients in enumerate(problem.gradients):
        if step == 2:
            before, numbers = without_error(made), host_numbers(made)
            x.fill_(value)
            set_gradients(made.params, gradients)
            for _ in range(2):
                message = f"step 2: {name} of param_groups[{group}] is {value}, it must be"
                with pytest.raises(RuntimeError, match=re.escape(message)):
                    made.opt.step()
                made.opt.metrics()
            x.fill_(0.5)
            made.opt.sync_mirrors()
            assert_same_contents(without_error(made), before)
            assert repr(host_numbers(made)) == repr(numbers)
        advance(made, gradients)
        advance(fine, gradients)
    assert_same_contents(contents(made), contents(fine))


@pytest.mark.parametrize(
    ("schedule", "step", "value"),
    [
        (S.sqrt(2.5 - S.step), 3, "nan"),
        (S.log(3 - S.step), 3, "-inf"),
        (1 / (2 - S.step), 2, "inf"),
    ],
)
@pytest.mark.parametrize(("rule", "name"), of_rules(Range.FINITE), indirect=["rule"])
def test_a_schedule_that_becomes_unusable(rng, backend, rule, name, schedule, step, value):
    """It stays refused: the counter does not move on."""
    problem = random_problem(rng, [(5,)], 5, none=0.0)
    made = start(problem.values, backend, **argument(name, 0.01 * schedule))
    for gradients in problem.gradients[:step]:
        advance(made, gradients)
    before = without_error(made)
    for gradients in problem.gradients[step:]:
        set_gradients(made.params, gradients)
        with pytest.raises(
            RuntimeError, match=f"step {step}: {name} of param_groups.0. is {value}"
        ):
            made.opt.step()
        assert_same_contents(without_error(made), before)
    made.opt.param_groups[0][name] = 0.001  # the caller may take over, with one warning
    with pytest.warns(UserWarning, match=f"{name} was set to 0.001 and overrides its schedule"):
        advance(made, problem.gradients[0])
    assert made.metrics[-1]["steps"] == step + 1


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize(("rule", "name"), of_rules(Range.FINITE), indirect=["rule"])
def test_an_unusable_number_that_a_caller_writes(rng, backend, rule, name, value):
    """Refused by name, and nothing has changed."""
    problem = random_problem(rng, [(5, 13), ()], 2, none=0.0)
    made = start(problem.values, backend, groups=({}, {}), max_grad_norm=1.0)
    advance(made, problem.gradients[0])
    made.opt.param_groups[1][name] = value
    before = without_error(made)
    set_gradients(made.params, problem.gradients[1])
    with pytest.raises(RuntimeError, match=rf"step 1: {name} of param_groups\[1\] is {value}"):
        made.opt.step()
    assert_same_contents(without_error(made), before)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_is_unusable_at_the_first_step(backend, name):
    made = start([torch.ones(3)], backend, **argument(name, S.sqrt(S.step - 1)))
    set_gradients(made.params, [torch.ones(3)])
    with pytest.raises(RuntimeError, match=rf"step 0: {name} of param_groups\[0\] is nan"):
        made.opt.step()
    assert made.params[0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("rule", "name"), of_rules(Range.FINITE, Range.BELOW_ONE), indirect=["rule"]
)
def test_a_first_value_that_is_nan_is_refused_by_the_constructor(backend, rule, name):
    with pytest.raises(ValueError, match="nan"):
        start([torch.ones(3)], backend, **argument(name, S.sqrt(S.step - 1)))


@pytest.mark.parametrize(("rule", "name"), of_rules(Range.FINITE, Range.LIMIT), indirect=["rule"])
def test_a_tensor_that_becomes_nan(backend, rule, name):
    x = torch.tensor(0.5)
    made = start([torch.ones(3)], backend, **argument(name, x))
    set_gradients(made.params, [torch.ones(3)])
    x.fill_(NAN)
    with pytest.raises(RuntimeError, match=rf"step 0: {name} of param_groups\[0\] is nan"):
        made.opt.step()
    assert made.params[0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", LIMITS)
def test_an_infinite_limit_is_usable(rng, backend, name):
    problem = random_problem(rng, [(5,)], 3, none=0.0)
    made = start(problem.values, backend, **argument(name, 1 / S.step))
    for gradients in problem.gradients:
        advance(made, gradients)
    assert made.metrics[-1]["steps"] == 3
