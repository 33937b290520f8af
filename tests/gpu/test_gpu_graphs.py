"""A step in a CUDA graph: schedules go on, addresses are its own, everything else is data."""

import copy
import functools

import pytest
import torch
from lib.options import LR, poison
from lib.runs import SMALL, parameters, random_problem

import lrfused
from lrfused import schedules as S
from lrfused.device.host_to_device import SPARES

from .helpers import another_stream, assert_same_end, captured, fill, on, start_on, step_with

pytestmark = pytest.mark.gpu

WARM_UP = 3
WITH_CARRIED = {  # numbers that travel, too
    "adamw": {"bias_correction": "product"},
    "sgd": {"momentum": S.linear(0.0, 0.9, 9), "dampening": 0.5},
    "lion": {},
}
SKIPPING = {
    "nonfinite": {"nonfinite": "skip"},
    "loss scale": {"loss_scale": lrfused.LossScale(init=64.0, growth_interval=9)},
}


def warmed_up(target, problem, **options):
    """An optimizer on the target after its first steps, and its step as a graph."""
    made = start_on(target, problem.values, **options)
    for gradients in problem.gradients[:WARM_UP]:
        fill(made, gradients)
        made.opt.step()
    return made, captured(made.opt.step, target.device)


def eager(target, problem, **options):
    """All steps without a graph."""
    made = start_on(target, problem.values, **options)
    for gradients in problem.gradients:
        fill(made, gradients)
        made.opt.step()
    return made


@pytest.mark.parametrize("skipping", SKIPPING)
def test_replays_follow_warmup_and_cosine_and_skip(rng, target, rule, skipping):
    """200 replays of one captured step."""
    problem = random_problem(rng, SMALL, WARM_UP + target.count(200, dry=20), none=0.0)
    problem = on(target.device, poison(rng, problem, 0.01))
    options = {"lr": LR, "max_grad_norm": 1.0, **SKIPPING[skipping], **rule.scheduled}
    made, replay = warmed_up(target, problem, **options)
    for gradients in problem.gradients[WARM_UP:]:
        fill(made, gradients)
        replay()
    assert_same_end(made, eager(target, problem, **options))


def test_two_graphs_with_gradients_of_their_own(rng, target):
    """Captured A, an eager step, captured B; replayed A, B, A."""
    problem = on(target.device, random_problem(rng, SMALL, 4, none=0.0))
    first, between, a, b = problem.gradients
    options = {"lr": LR, "max_grad_norm": 1.0}
    made, want = (start_on(target, problem.values, **options) for _ in range(2))
    step_with(made, first)
    graph_a = captured(lambda: step_with(made, a), target.device)
    step_with(made, between)
    graph_b = captured(lambda: step_with(made, b), target.device)
    for graph in (graph_a, graph_b, graph_a):
        graph()
    for gradients in (first, between, a, b, a):
        step_with(want, gradients)
    step_with(made, first)  # the gradients that a run leaves are compared, too
    step_with(want, first)
    assert_same_end(made, want)


def test_graphs_captured_in_a_row(rng, target):
    """No step outside of a graph between the captures; then the last is captured once more."""
    problem = on(target.device, random_problem(rng, SMALL, 5, none=0.0))
    options = {"lr": LR, "max_grad_norm": 1.0}
    made, want = (start_on(target, problem.values, **options) for _ in range(2))
    first, *others = problem.gradients
    step_with(made, first)
    calls = [functools.partial(step_with, made, gradients) for gradients in (*others, others[-1])]
    graphs = [captured(call, target.device) for call in calls]
    for graph in graphs:
        graph()
    for gradients in (*problem.gradients, others[-1], first):
        step_with(want, gradients)
    step_with(made, first)  # the gradients that a run leaves are compared, too
    assert_same_end(made, want)


def test_numbers_that_changed_just_before_a_capture(rng, target, rule):
    problem = on(target.device, random_problem(rng, SMALL, WARM_UP + 3, none=0.0))
    made, want = (start_on(target, problem.values, lr=1e-2) for _ in range(2))
    for step, gradients in enumerate(problem.gradients):
        for run in (made, want):
            fill(run, gradients)
            if step == WARM_UP:
                run.opt.param_groups[0].update(lr=0.25, weight_decay=0.5)
        if step == WARM_UP:
            replay = captured(made.opt.step, target.device)
        want.opt.step()
        (made.opt.step if step < WARM_UP else replay)()
    assert_same_end(made, want)


def test_more_gradients_than_a_kernels_parameters_hold(rng, target):
    problem = random_problem(rng, [(2,)] * target.count(4500, dry=50), WARM_UP + 3, none=0.0)
    problem = on(target.device, problem)
    made, replay = warmed_up(target, problem, max_grad_norm=0.5)
    for gradients in problem.gradients[WARM_UP:]:
        fill(made, gradients)
        replay()
    assert_same_end(made, eager(target, problem, max_grad_norm=0.5))


def test_push_makes_room_for_more_captures(rng, target):
    """More than there is memory held ready for, in CUDA beyond a kernel's parameters."""
    problem = random_problem(rng, [(2,)] * target.count(4500, dry=50), SPARES + 4, none=0.0)
    problem = on(target.device, problem)
    made, want = (start_on(target, problem.values, max_grad_norm=0.5) for _ in range(2))
    first, *others = problem.gradients
    step_with(made, first)
    graphs = []
    for number, gradients in enumerate(others):
        if number % SPARES == 0:
            made.opt.push()
        graphs.append(captured(functools.partial(step_with, made, gradients), target.device))
    for graph in graphs:
        graph()
    for gradients in (*problem.gradients, first):
        step_with(want, gradients)
    step_with(made, first)
    assert_same_end(made, want)


def test_a_checkpoint_is_loaded_in_place_and_replays_go_on(rng, target, rule):
    problem = on(target.device, random_problem(rng, SMALL, WARM_UP + 10, none=0.0))
    options = {"lr": LR, "max_grad_norm": 1.0, "loss_scale": "dynamic"}
    options |= WITH_CARRIED[rule.name]
    made, replay = warmed_up(target, problem, **options)

    def replay_all(steps):
        for gradients in steps:
            fill(made, gradients)
            replay()

    replay_all(problem.gradients[WARM_UP : WARM_UP + 5])
    values = [p.detach().clone() for p in made.params]
    saved = copy.deepcopy(made.opt.state_dict())
    replay_all(problem.gradients[:7])  # somewhere else
    with torch.no_grad():
        for p, value in zip(made.params, values, strict=True):
            p.copy_(value)
    made.opt.load_state_dict(saved)
    replay_all(problem.gradients[WARM_UP + 5 :])
    but = () if rule.counts else ("counts", "steps")
    assert_same_end(made, eager(target, problem, **options), but)


@pytest.mark.filterwarnings("ignore:param_groups")
def test_an_override_reaches_replays_by_push(rng, target):
    problem = on(target.device, random_problem(rng, SMALL, WARM_UP + 6, none=0.0))
    options = {"lr": LR, "max_grad_norm": 1.0, "weight_decay": 0.1}
    made, replay = warmed_up(target, problem, **options)
    want = start_on(target, problem.values, **options)
    for step, gradients in enumerate(problem.gradients):
        if step == WARM_UP + 2:
            for opt in (made.opt, want.opt):
                opt.param_groups[0].update(lr=0.25, weight_decay=0.5)
            made.opt.push()
        fill(want, gradients)
        want.opt.step()
        if step >= WARM_UP:
            fill(made, gradients)
            replay()
    assert_same_end(made, want)


def test_an_input_is_read_by_every_replay(rng, target):
    problem = on(target.device, random_problem(rng, SMALL, WARM_UP + 4, none=0.0))
    noise = torch.tensor(1.0, dtype=torch.float64, device=target.device)
    made, replay = warmed_up(target, problem, lr=1e-2 * S.input(noise, "noise") / (1 + S.step))
    other = torch.tensor(1.0, dtype=torch.float64, device=target.device)
    want = start_on(target, problem.values)
    want.opt = lrfused.AdamW(
        want.params, lr=1e-2 * S.input(other, "noise") / (1 + S.step), backend=target.backend
    )
    for step, gradients in enumerate(problem.gradients):
        value = 1.0 if step < WARM_UP else 2.0**-step
        other.fill_(value)
        fill(want, gradients)
        want.opt.step()
        if step >= WARM_UP:
            noise.fill_(value)
            fill(made, gradients)
            replay()
    assert_same_end(made, want)


def test_a_whole_training_step_in_a_graph(rng, target):
    """Forward, backward and step, as torch's documentation captures them."""
    model = torch.nn.Sequential(torch.nn.Linear(7, 13), torch.nn.Tanh(), torch.nn.Linear(13, 3))
    twin = copy.deepcopy(model).to(target.device)
    model.to(target.device)
    inputs = torch.randn(WARM_UP + 20, 5, 7, generator=rng.torch).to(target.device)
    options = {"lr": LR, "max_grad_norm": 0.1, "backend": target.backend}
    opt, other = (lrfused.AdamW(m.parameters(), **options) for m in (model, twin))
    static = inputs[0].clone()

    def train(model, opt, batch):
        opt.zero_grad(set_to_none=False)
        model(batch).square().mean().backward()
        opt.step()

    with another_stream(target.device):  # backward remembers the stream of its first run
        for batch in inputs[:WARM_UP]:
            static.copy_(batch)
            train(model, opt, static)
    replay = captured(lambda: train(model, opt, static), target.device)
    for batch in inputs[WARM_UP:]:
        static.copy_(batch)
        replay()
    for batch in inputs:
        train(twin, other, batch.clone())
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)  # matrix products may differ
    assert opt.metrics()["steps"] == other.metrics()["steps"] == len(inputs)


# What is refused; last, because a refused capture may leave a mess.


def test_a_group_may_not_be_added_after_a_capture(rng, target):
    if target.dry:
        pytest.skip("nothing is captured on a CPU")
    problem = on(target.device, random_problem(rng, SMALL, WARM_UP, none=0.0))
    made, replay = warmed_up(target, problem)
    late = parameters([torch.zeros(3, device=target.device)])
    with pytest.raises(RuntimeError, match="captur"):
        made.opt.add_param_group({"params": late})
    replay()
    assert made.opt.metrics()["steps"] == WARM_UP + 1


def test_a_capture_before_the_first_step_is_refused(rng, target):
    if target.dry:
        pytest.skip("nothing is captured on a CPU")
    problem = on(target.device, random_problem(rng, SMALL, 1, none=0.0))
    made = start_on(target, problem.values)
    fill(made, problem.gradients[0])

    def something_before():  # torch warns of a graph with nothing in it
        made.params[0].grad.add_(0.0)
        made.opt.step()

    with pytest.raises(RuntimeError, match="step"):
        captured(something_before, target.device)
