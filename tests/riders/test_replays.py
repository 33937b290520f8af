"""Rewinding under a captured graph: its kernels, launched again, go on as eager steps do."""

import pytest
from lib.emulating import emulated
from lib.runs import assert_same_contents, give_gradient

from lrfused.backends.cuda.step import Call
from lrfused.backends.work import WHOLE_STEP

from .going_back import AFTER, BEFORE, begun, go_on, random_course, standing, until_snapshot

pytestmark = [
    emulated,
    pytest.mark.filterwarnings("ignore:param_groups.* overrides its schedule"),
]


def captured(course):
    """What a graph does: the kernels with the arguments of now, and nothing of the host."""
    run, work = course.opt._engine.table.run, course.opt._engine.table.work
    addresses, *others = run.prepare(work).arguments
    call = Call((addresses.copy(), *others), ())
    return lambda: run.run(call, WHOLE_STEP)


def filled(course, gradients):
    """New values in the gradients' own memory; a parameter without one gets none."""
    for p, g in zip(course.params, gradients, strict=True):
        if p.grad is not None:
            p.grad.copy_(g)


def without_gaps(problem):
    """A graph steps over the gradients that there were at its capture, at every replay."""
    for gradients in problem.gradients:
        for i, g in enumerate(gradients):
            gradients[i] = problem.values[i].clone() if g is None else g
    return problem


def step(course, gradients):
    for p, g in zip(course.params, gradients, strict=True):
        give_gradient(p, g.clone())
    course.opt.step()


def test_replays_after_a_rewind_are_eager_steps(rng, rule, cuda):
    """With values that the caller has changed and pushed since: overrides, a Tensor, an input."""
    problem = without_gaps(random_course(rng))
    made, want = (until_snapshot(begun(problem, "cuda")) for _ in range(2))
    snapshot = made.opt.snapshot()
    replay, table = captured(made), made.opt._engine.table
    for gradients in problem.gradients[BEFORE:]:
        filled(made, gradients)
        replay()
    first, second = made.opt.param_groups
    first["lr"], second["weight_decay"] = 0.5, 0.8
    first["weight_decay"] = made.mirror
    made.lr.fill_(0.3)
    made.knob.fill_(0.1)
    made.opt.push()
    replay()
    made.opt.rewind(snapshot)
    for gradients in problem.gradients[BEFORE:]:
        filled(made, gradients)
        replay()
        step(want, gradients)
    made.opt.sync_mirrors()
    assert_same_contents(standing(made), standing(want))
    assert made.opt.metrics()["steps"] > BEFORE and made.opt._engine.table is table
    made.opt.rewind(snapshot)  # and eager steps after that
    want.opt.rewind(snapshot)
    assert_same_contents(standing(go_on(made)), standing(go_on(want)))
    assert len(problem.gradients) == BEFORE + AFTER
