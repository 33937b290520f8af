"""What changes in mid-run: rows are rewritten in the order of the stream, a graph keeps its own."""

import pytest
import torch
from lib.options import LR
from lib.runs import SMALL, random_problem

from .helpers import (
    another_stream,
    assert_same_end,
    captured,
    nothing_waits,
    on,
    reference_of,
    start_on,
    step_with,
)

pytestmark = pytest.mark.gpu

LATE = {3: 5, 6: 8, 1: 8}  # parameters and the steps of their first gradients


def with_late_gradients(rng, steps):
    problem = random_problem(rng, SMALL, steps, none=0.0)
    for step, gradients in enumerate(problem.gradients):
        for i, first in LATE.items():
            if step < first:
                gradients[i] = None
    return problem


def replaced(made, step):
    """Other memory with the same values: of a parameter, and of all state of another."""
    p, q = made.params[step % 3], made.params[4]
    p.data = p.data.clone()
    state = made.opt.state.get(q, {})
    for key in made.opt.rule.state_keys:
        if state.get(key) is not None:
            state[key] = state[key].clone()


def test_changes_give_the_references_bits_and_nothing_waits(rng, target, rule):
    problem = with_late_gradients(rng, 12)
    options = {"lr": LR, "max_grad_norm": 1.0}
    want = reference_of(problem, **options)
    made, problem = start_on(target, problem.values, **options), on(target.device, problem)
    for step, gradients in enumerate(problem.gradients):
        if step > 1:
            replaced(made, step)
            with nothing_waits(target.device):
                step_with(made, gradients)
        else:
            step_with(made, gradients)
    want.metrics.clear()
    assert_same_end(made, want)


def test_changes_on_a_stream_of_their_own(rng, target):
    problem = with_late_gradients(rng, 12)
    want = reference_of(problem, lr=LR)
    made, problem = start_on(target, problem.values, lr=LR), on(target.device, problem)
    for step, gradients in enumerate(problem.gradients):
        with another_stream(target.device):
            replaced(made, step)
            step_with(made, gradients)
    assert_same_end(made, want)


def test_a_tensor_lr_may_be_another_at_every_step(rng, target):
    problem = random_problem(rng, SMALL, 9, none=0.0)
    made, want = start_on(target, problem.values, lr=0.1), reference_of(problem, lr=LR)
    for step, gradients in enumerate(on(target.device, problem).gradients):
        lr = torch.tensor(LR(step), dtype=torch.float64, device=target.device)
        made.opt.param_groups[0]["lr"] = lr
        with nothing_waits(target.device) if step else another_stream(target.device):
            step_with(made, gradients)
    made.opt.param_groups[0]["lr"] = want.opt.param_groups[0]["lr"]
    assert_same_end(made, want)


def test_a_graph_keeps_its_table_when_something_changes(rng, target):
    """Captured; then a first gradient comes, and another table; then the graph is replayed.

    It comes to the last parameter, so that all others have the same places in the norm's order.
    """
    problem = on(target.device, random_problem(rng, SMALL, 6, none=0.0))
    options = {"lr": LR, "max_grad_norm": 1.0}
    made, want = (start_on(target, problem.values, **options) for _ in range(2))
    late = made.params[-1], want.params[-1]

    def without_late(gradients):
        return [*gradients[:-1], None]

    for run in (made, want):
        for gradients in problem.gradients[:2]:
            step_with(run, without_late(gradients))
    graphs = without_late(problem.gradients[2])
    for p, g in zip(made.params, graphs, strict=True):
        p.grad = g
    replay = captured(made.opt.step, target.device)
    table = made.opt._engine.table
    rows = table.work.tensors.copy()
    for run in (made, want):
        step_with(run, problem.gradients[3])
        step_with(run, problem.gradients[4])
    for p, g in zip(made.params, graphs, strict=True):
        p.grad = g
    replay()
    step_with(want, graphs)
    assert (table.work.tensors == rows).all() or target.dry
    assert all(run.opt.state[p] for run, p in zip((made, want), late, strict=True))
    for run in (made, want):
        step_with(run, problem.gradients[5])
    assert_same_end(made, want)


@pytest.mark.parametrize("rule", ["sgd"], indirect=True)
def test_parameters_may_move_to_the_gpu_and_back(rng, target, rule):
    """Without state nothing but the parameters themselves shows where they are."""
    problem = random_problem(rng, SMALL, 6, none=0.0)
    options = {"lr": LR, "max_grad_norm": 1.0, "momentum": 0.0}
    want = reference_of(problem, **options)
    made = start_on(
        target._replace(backend="auto", device=torch.device("cpu")), problem.values, **options
    )
    for step, gradients in enumerate(problem.gradients):
        device = target.device if step in (2, 3) else torch.device("cpu")
        for p in made.params:
            p.grad = None
            p.data = p.data.to(device)
        step_with(made, on(device, gradients))
    assert_same_end(made, want)
