"""Snapshots and rewinds on a GPU: eager, and under a captured graph that is replayed again."""

import pytest
import torch
from lib.options import LR, poison
from lib.runs import SMALL, random_problem

import lrfused

from .helpers import assert_same_end, captured, fill, on, start_on

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:param_groups.* overrides its")]

CAPTURED, BEFORE = 2, 4  # steps before the capture, before the snapshot
DEVICES = [None, "cpu"]


def begun(target, rule, values):
    """With all that a snapshot has, but for inputs; a schedule is overridden."""
    options = {**rule.kind.widest, **rule.kind.carrying, **rule.scheduled, "lr": LR}
    scale = lrfused.LossScale(init=64.0, growth_interval=3)
    made = start_on(target, values, max_grad_norm=1.0, loss_scale=scale, **options)
    made.opt.param_groups[0]["weight_decay"] = 0.3
    return made


def problem_on(rng, target):
    problem = random_problem(rng, SMALL, BEFORE + target.count(10, dry=2), none=0.0)
    return on(target.device, poison(rng, problem, 0.05))


def eager(made, steps):
    for gradients in steps:
        fill(made, gradients)
        made.opt.step()


@pytest.mark.parametrize("device", DEVICES)
def test_replays_after_a_rewind_are_eager_steps(rng, target, rule, device):
    """Numbers that were pushed since are those of then again, for the graph, too."""
    problem = problem_on(rng, target)
    made, want = (begun(target, rule, problem.values) for _ in range(2))
    eager(want, problem.gradients)
    eager(made, problem.gradients[:CAPTURED])
    replay = captured(made.opt.step, target.device)

    def replay_all(steps):
        for gradients in steps:
            fill(made, gradients)
            replay()

    replay_all(problem.gradients[CAPTURED:BEFORE])
    taken = made.opt.snapshot(device)
    assert taken.weights[0].device == torch.device(device or target.device)
    made.opt.param_groups[0].update(lr=0.25, weight_decay=0.9)
    made.opt.push()
    replay_all(problem.gradients[:2])
    for _ in range(2):
        made.opt.rewind(taken)
        replay_all(problem.gradients[BEFORE:])
        assert_same_end(made, want)


@pytest.mark.parametrize("device", DEVICES)
def test_eager_steps_after_a_rewind(rng, target, rule, device):
    """Also from a snapshot that is rewound to by an optimizer without any step of its own."""
    problem = problem_on(rng, target)
    made, want, other = (begun(target, rule, problem.values) for _ in range(3))
    eager(want, problem.gradients)
    eager(made, problem.gradients[:BEFORE])
    taken = made.opt.snapshot(device)
    eager(made, problem.gradients[:2])
    for run in (made, other):
        run.opt.rewind(taken)
        eager(run, problem.gradients[BEFORE:])
        assert_same_end(run, want)
