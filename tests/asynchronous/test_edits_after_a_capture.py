"""Groups that are edited after a step was captured: a graph knows those that there were."""

import pytest
import torch
from lib.runs import assert_same_bits
from torch.nn import Parameter

import lrfused
from lrfused import schedules

from .capturing import capture

MESSAGE = r"param_groups: groups were removed, added or put in another order after a step was captu"


@pytest.fixture
def opt(rng, queue):
    """Three groups, one with a schedule, after two steps and a captured one."""
    params = [Parameter(torch.randn(4, generator=rng.torch)) for _ in range(3)]
    own = ({"lr": schedules.linear(0.5, 0.1, 9)}, {"clip_value": 0.5}, {"agc": 0.1})
    groups = [{"params": [p], **one} for p, one in zip(params, own, strict=True)]
    opt = lrfused.AdamW(groups, lr=0.1, max_grad_norm=1.0)
    for _ in range(2):
        step(rng, opt)
    queue.run()
    give(rng, opt)
    capture(queue, opt)
    return opt


def give(rng, opt):
    for group in opt.param_groups:
        for p in group["params"]:
            p.grad = torch.randn(p.shape, generator=rng.torch)


def step(rng, opt):
    give(rng, opt)
    opt.step()


def by_hand(opt):
    own = {key: value for key, value in opt.param_groups[0].items() if "lrfused" not in key}
    opt.param_groups.append({**own, "params": [Parameter(torch.ones(2))]})


def another(opt):
    other = lrfused.AdamW([Parameter(torch.ones(2))])
    opt.param_groups[1] = other.param_groups[0]


EDITS = {
    "remove": lambda opt: opt.param_groups.pop(1),
    "clear": lambda opt: opt.param_groups.clear(),
    "reverse": lambda opt: opt.param_groups.reverse(),
    "swap": lambda opt: opt.param_groups.insert(0, opt.param_groups.pop()),
    "add by hand": by_hand,
    "add a copy": lambda opt: opt.param_groups.append(dict(opt.param_groups[0], params=[])),
    "another one": another,
}


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_after_a_capture_is_refused(rng, queue, opt, edit, replaced):
    """Nothing has moved, and nothing was uploaded; with the groups put back the next step, push()
    and capture are right. It is the same if the captured table was replaced in between."""
    params = [p for group in opt.param_groups for p in group["params"]]
    if replaced:
        params[0].data = params[0].data.clone()
        step(rng, opt)
    before, kept = [p.detach().clone() for p in params], list(opt.param_groups)
    steps, pushed = opt.metrics()["steps"], len(opt._engine.table.run.pushed)
    edit(opt)
    give(rng, opt)
    for ask in (opt.step, opt.push) if opt.param_groups else (opt.push,):
        with pytest.raises(RuntimeError, match=MESSAGE):
            ask()
    assert len(opt._engine.table.run.pushed) == pushed
    for p, q in zip(params, before, strict=True):
        assert_same_bits(p.detach(), q)
    opt.param_groups[:] = kept
    assert opt.metrics()["steps"] == steps
    step(rng, opt)
    give(rng, opt)
    capture(queue, opt)
    opt.push()
    assert opt.metrics()["steps"] == steps + 2
    assert len(opt._engine.table.run.pushed) == pushed + 1


def test_groups_that_are_put_back_have_their_own_values(rng, queue, opt):
    """After a refused step: not those of the places that they had in between."""
    rates = opt.metrics()["lr"]
    opt.param_groups.reverse()
    with pytest.raises(RuntimeError, match=MESSAGE):
        step(rng, opt)
    opt.param_groups.reverse()
    step(rng, opt)
    assert opt.metrics()["lr"] == [schedules.linear(0.5, 0.1, 9)(3), *rates[1:]]


def test_copies_in_the_same_places_are_no_other_groups(rng, queue, opt):
    """dict(g) in place of g: the graph goes on, and so does a step outside of it."""
    table = opt._engine.table
    opt.param_groups[:] = [dict(group) for group in opt.param_groups]
    opt.push()
    step(rng, opt)
    assert opt.metrics()["steps"] == 4 and opt._engine.table is table


def test_a_schedule_that_was_written_shows_its_value_at_the_step_that_is_known(rng, queue):
    """At once, where the device is late; a capture with it takes a step before."""
    opt = lrfused.AdamW([Parameter(torch.ones(4))], lr=0.1)
    for _ in range(3):
        step(rng, opt)
    queue.run()  # which was asked after the first step
    step(rng, opt)
    lr = schedules.linear(0.5, 0.1, 9)
    opt.param_groups[0]["lr"] = lr
    with pytest.raises(RuntimeError, match="step: a new table of addresses is needed"):
        capture(queue, opt)
    assert opt.param_groups[0]["lr"] == lr(1)
    step(rng, opt)
    give(rng, opt)
    capture(queue, opt)
    assert opt.metrics()["lr"] == [lr(5)] and opt.metrics()["steps"] == 6
