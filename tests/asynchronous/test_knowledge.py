"""The host learns of a GPU's steps late: counters, mirrors and errors."""

import copy
import pickle

import pytest
import torch
from lib.runs import FEW, advance, assert_same_bits, random_problem, set_gradients, start

from lrfused import schedules as S
from lrfused.device.readback import LONGEST_PAUSE

NAN = float("nan")
LR = S.warmup_cosine(1e-2, 3, 20)


def stepping(rng, **options):
    """An optimizer and what makes its next step."""
    made = start(random_problem(rng, FEW, 1).values, **options)

    def step(bad=False):
        gradients = random_problem(rng, FEW, 1).gradients[0]
        if bad:
            gradients[2][1, 3] = NAN
        set_gradients(made.params, gradients)
        made.opt.step()

    return made, step


def test_mirrors_follow_as_the_counter_arrives(rng, queue):
    made, step = stepping(rng, lr=LR)
    (group,) = made.opt.param_groups
    for _ in range(3):
        step()
        assert group["lr"] == LR(0)
    assert len(queue.waiting) == 1  # one copy is on its way at a time
    queue.run()  # that of the first step
    step()
    assert group["lr"] == LR(1)
    queue.run()  # that of the fourth
    step()
    assert group["lr"] == LR(4)


def test_mirrors_of_inputs_show_what_the_device_held(rng, queue):
    x = torch.tensor(0.5, dtype=torch.float64)
    made, step = stepping(rng, lr=LR * S.input(x, "x"))
    step()
    x.fill_(0.25)
    queue.run()
    step()
    assert made.opt.param_groups[0]["lr"] == LR(1) * 0.5
    queue.run()
    step()
    assert made.opt.param_groups[0]["lr"] == LR(2) * 0.25


def test_most_steps_copy_nothing(rng, queue):
    """And mirrors lag by so many steps at most, if the device keeps up."""
    made, step = stepping(rng, lr=S.linear(0.0, 1.0, 1000))
    asked = []
    for done in range(1, 101):
        before = queue.asked
        step()
        queue.run()
        shown = round(1000 * made.opt.param_groups[0]["lr"])
        assert done - shown <= LONGEST_PAUSE + 1
        asked += [done] * (queue.asked - before)
    assert asked == [1, 2, 4, 8, 16, 32, 48, 64, 80, 96]
    assert queue.marks == len(asked)


def test_a_copy_that_is_late_puts_the_next_one_off(rng, queue):
    made, step = stepping(rng, lr=LR)
    for _ in range(6):
        step()
    assert queue.asked == 1
    queue.run()
    step()
    assert queue.asked == 2
    queue.run()
    step()
    assert made.opt.param_groups[0]["lr"] == LR(7)


@pytest.mark.parametrize("ask", ["metrics", "state_dict", "sync_mirrors"])
def test_mirrors_are_exact_when_asked_for_and_do_not_go_back(rng, queue, ask):
    made, step = stepping(rng, lr=LR)
    (group,) = made.opt.param_groups
    for _ in range(3):
        step()
    getattr(made.opt, ask)()
    assert group["lr"] == LR(3)
    queue.run()  # that of the first step
    step()
    assert group["lr"] == LR(3)
    queue.run()
    step()
    assert group["lr"] == LR(4)


def test_a_callers_number_is_not_lost_to_a_mirror_that_arrives(rng, queue):
    made, step = stepping(rng, lr=LR)
    step()
    made.opt.param_groups[0]["lr"] = 0.125
    queue.run()
    with pytest.warns(UserWarning, match="overrides its schedule"):
        step()
    assert made.opt.param_groups[0]["lr"] == 0.125
    assert made.opt.metrics()["lr"] == [0.125]


def test_a_loaded_counter_is_newer_than_what_is_on_its_way(rng, queue):
    made, step = stepping(rng, lr=LR)
    for _ in range(5):
        step()
    saved = copy.deepcopy(made.opt.state_dict())
    other, other_step = stepping(rng, lr=LR)
    other_step()
    other.opt.load_state_dict(saved)
    assert other.opt.param_groups[0]["lr"] == LR(5)
    queue.run()
    other_step()
    assert other.opt.param_groups[0]["lr"] == LR(5)
    assert other.opt.metrics()["steps"] == 6


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_waits_for_nothing(rng, queue, rule, duplicate):
    made, step = stepping(rng, lr=LR)
    step()
    opt = duplicate(made.opt)
    assert opt._engine.bookkeeping.counters.readback is None
    queue.run()
    opt.param_groups[0]["params"][0].grad = torch.tensor(1.0)
    opt.step()
    assert opt.metrics()["steps"] == 2


# Errors


def test_a_refused_step_is_told_by_a_later_one_which_does_nothing(rng, queue, rule):
    made, step = stepping(rng, nonfinite="raise")
    step()
    queue.run()
    step(bad=True)
    step()  # still unknown: it counts
    before = [p.detach().clone() for p in made.params]
    step(bad=True)  # a second one; the first is told
    queue.run()
    with pytest.raises(RuntimeError, match="step 1: a gradient is not finite"):
        step()
    for _ in range(2):
        queue.run()
        step()
    assert made.opt.metrics()["steps"] == 4
    assert not any(torch.equal(p, q) for p, q in zip(made.params, before, strict=True))


@pytest.mark.parametrize("refused", [0, 4, 15, 16, 32, 40])
def test_a_refused_step_is_told_soon(rng, queue, refused):
    """By one of the next steps, of which there is a fixed number."""
    _, step = stepping(rng, nonfinite="raise")
    for _ in range(refused):
        step()
        queue.run()
    step(bad=True)
    with pytest.raises(RuntimeError, match=f"step {refused}: a gradient is not finite"):
        for _ in range(LONGEST_PAUSE):
            queue.run()
            step()


@pytest.mark.parametrize("ask", ["metrics", "state_dict", "sync_mirrors"])
def test_a_refused_step_is_told_when_asked_and_once(rng, queue, ask):
    made, step = stepping(rng, nonfinite="raise")
    step(bad=True)
    with pytest.raises(RuntimeError, match="step 0: a gradient is not finite"):
        getattr(made.opt, ask)()
    getattr(made.opt, ask)()
    queue.run()  # the copy behind the bad step: it is known
    step()
    assert made.opt.metrics()["steps"] == 1


def test_an_error_of_a_loaded_optimizer_is_forgotten(rng, queue):
    made, step = stepping(rng, nonfinite="raise")
    step()
    saved = copy.deepcopy(made.opt.state_dict())
    step(bad=True)
    made.opt.load_state_dict(saved)
    queue.run()
    step()
    assert made.opt.metrics()["steps"] == 2


def test_an_unusable_hyperparameter_is_named(rng, queue):
    _, step = stepping(rng, groups=({}, {"eps": S.select(S.equal(S.step, 1), NAN, 1e-8)}))
    step()
    step()
    queue.run()
    step()
    queue.run()
    with pytest.raises(RuntimeError, match=r"step 1: eps of param_groups\[1\] is nan"):
        step()


def test_the_steps_are_those_of_a_cpu(rng, queue, rule, monkeypatch):
    problem = random_problem(rng, FEW, 6)
    late = start(problem.values, lr=LR, max_grad_norm=0.5, loss_scale="dynamic")
    for gradients in problem.gradients:
        set_gradients(late.params, gradients)
        late.opt.step()
        queue.run()
    metrics = late.opt.metrics()
    monkeypatch.undo()
    want = start(problem.values, "cpu", lr=LR, max_grad_norm=0.5, loss_scale="dynamic")
    for gradients in problem.gradients:
        advance(want, gradients)
    for p, q in zip(late.params, want.params, strict=True):
        assert_same_bits(p, q)
    assert metrics == want.metrics[-1]


# What changes while the device is asked


def test_a_schedule_whose_inputs_were_not_asked_for_is_mirrored_later(rng, queue):
    made, step = stepping(rng, lr=0.1)
    step()
    knob, line = torch.tensor(2.0), S.linear(0.5, 0.0, 10)
    made.opt.param_groups[0]["lr"] = S.input(knob, "knob") * line
    queue.run()  # what was asked for after the first step
    step()
    assert made.opt.param_groups[0]["lr"] == 2.0 * line(0)  # as it was written
    step()
    queue.run()
    step()
    assert made.opt.param_groups[0]["lr"] == 2.0 * line(2)


def test_errors_are_told_though_something_changes_at_every_step(rng, queue):
    """A new Tensor lr and moved memory, each time: what was asked of the device still counts."""
    made, step = stepping(rng, lr=torch.tensor(0.1), nonfinite="raise")
    param = made.params[2]
    step()
    step(bad=True)
    with pytest.raises(RuntimeError, match="not finite"):
        for _ in range(60):
            made.opt.param_groups[0]["lr"] = torch.tensor(0.1)
            param.data = param.data.clone()
            before = len(queue.waiting)
            step()
            queue.run(before)  # the device is one step behind
