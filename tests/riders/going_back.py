"""Runs in which everything changes that a snapshot has, and what they leave."""

from dataclasses import dataclass
from typing import Any

import torch
from lib.rules_for_steps import of_the_test
from lib.runs import Problem, Run, advance, contents, host_numbers, random_problem, start, words

import lrfused
from lrfused import schedules as S
from lrfused.state.device_state import Field

SHAPES = [(), (3,), (0,), (5, 13), (65,), (7,)]
LATE = 4  # its first gradient comes after the snapshot; it is in the first group
BEFORE, AFTER = 4, 5
KEPT = [*range(Field.ERROR), Field.ERROR]  # words that only steps set again


@dataclass
class Course(Run):
    """A run with an input and a Tensor lr, which the caller changes on the way."""

    problem: Problem | None = None
    knob: torch.Tensor | None = None
    lr: torch.Tensor | None = None
    mirror: float = 0.0  # what the weight decay was overridden at


def random_course(rng) -> Problem:
    """Gradients with two overflows, one on each side of the snapshot."""
    problem = random_problem(rng, SHAPES, BEFORE + AFTER, none=0.3)
    for step in (1, BEFORE + 1):
        problem.gradients[step][0] = torch.full(SHAPES[0], torch.inf)
    for gradients in problem.gradients[: BEFORE + 2]:
        gradients[LATE] = None
    problem.gradients[-1][LATE] = torch.randn(SHAPES[LATE], generator=rng.torch)
    return problem


def begun(problem, backend, **others: Any) -> Course:
    """Before the first step: schedules, numbers, a Tensor, an input, and all state there can be."""
    kind, of_rule = of_the_test().kind, of_the_test()
    knob, lr = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.02)
    options = {
        **kind.widest,
        **kind.carrying,
        **of_rule.scheduled,
        "lr": S.warmup_cosine(0.1, 3, 20) * S.input(knob, "knob"),
        "max_grad_norm": 1.0,
        "loss_scale": lrfused.LossScale(init=64.0, growth_interval=2),
        "groups": ({}, {**kind.numbers, "lr": lr, "start_step": 2, "ema_decay": 0.8}),
        **others,
    }
    made = start(problem.values, backend, **options)
    return Course(made.params, made.opt, problem=problem, knob=knob, lr=lr)


def until_snapshot(course: Course) -> Course:
    """The steps before it; the weight decay of the first group is overridden by then."""
    for step in range(BEFORE):
        if step == 2:
            first = course.opt.param_groups[0]
            course.mirror, first["weight_decay"] = first["weight_decay"], 0.3
        advance(course, course.problem.gradients[step])
    return course


def go_on(course: Course) -> Course:
    """The steps after it, with changes of all that the caller may change."""
    first, second = course.opt.param_groups
    for step in range(AFTER):
        if step == 1:
            course.knob.fill_(0.5)
            course.lr.fill_(0.7)
            second["weight_decay"] = first["weight_decay"] = 0.9
        if step == 3:
            first["lr"], first["weight_decay"] = 0.3, course.mirror
        advance(course, course.problem.gradients[BEFORE + step])
    return course


def whole(course: Course) -> dict[str, torch.Tensor]:
    """All that a snapshot has."""
    found = {k: tensor for k, tensor in contents(course).items() if not k.startswith("grad")}
    found["words"] = words(course)["integer words"][KEPT]
    found["knob"] = course.knob.clone()
    numbers = bytearray(str(host_numbers(course)).encode())
    return {**found, "numbers": torch.frombuffer(numbers, dtype=torch.uint8)}


def standing(course: Course) -> dict[str, torch.Tensor]:
    """The same without the state of the parameter that has none at the snapshot."""
    late = f"[{LATE}]"
    return {k: x for k, x in whole(course).items() if not k.endswith(late) or k == f"p{late}"}
