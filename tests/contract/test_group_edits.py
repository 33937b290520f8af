"""param_groups is the caller's list.

What belongs to a group (schedules, options, counts) belongs to its dictionary, not to its place.
"""

import copy
import pickle

import pytest
import torch
from lib.contract import assert_near, assert_same_bits, make_parameters, run, twin

import lrfused
from lrfused import schedules

from .edits import EDITS, Edited, copied, own_settings, saved_groups, torchs_settings

either = pytest.mark.parametrize("scheduled", [False, True], ids=["numbers", "schedules"])
every_edit = pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)


@either
@every_edit
def test_edited_groups_keep_their_own_settings(rng, kind, backend, edit, scheduled):
    """Groups that are removed, reordered, copied, cleared or added anew, before the first step or
    in mid-run: each steps in every bit as in an optimizer of its own, with its schedules and
    options."""
    for at in (0, 3) if scheduled else (3,):
        made = Edited(rng, kind, own_settings(scheduled, kind), backend)
        made.step(at)
        edit(made.opt, made.more)
        made.step(3)
        made.assert_right()


@either
@every_edit
def test_an_edited_list_steps_as_torchs(rng, kind, edit, scheduled):
    """The same edit of a torch.optim.AdamW, whose numbers are written by hand where ours follow a
    schedule: the same parameters, moments, counts and numbers in the groups."""
    for at in (0, 3):
        ours = Edited(rng, kind, torchs_settings(scheduled, kind))
        theirs = Edited(rng, kind, torchs_settings(False, kind), is_ours=False)
        for a, b in zip(theirs.params, ours.params, strict=True):
            a.data.copy_(b)
        for step in range(7):
            if step == at:
                edit(ours.opt, ours.more)
                edit(theirs.opt, theirs.more)
            theirs.write(torchs_settings(scheduled, kind), step)
            for a, b in zip(ours.opt.param_groups, theirs.opt.param_groups, strict=True):
                ours.opt.sync_mirrors()
                assert all(a[key] == b[key] for key in kind.hyperparameters)
            ours.step(1, theirs)
        assert_near(ours.opt, theirs.opt)


@either
def test_an_edited_optimizer_is_one_that_was_made_so(rng, kind, backend, scheduled):
    """Edited before the first step: metrics, repr and checkpoint of an optimizer whose groups were
    in that form from the beginning, with a clip of all gradients and a loss scale."""

    def make(groups):
        limit = schedules.linear(0.5, 1.0, 5) if scheduled else 0.5
        return kind.ours(groups, max_grad_norm=limit, loss_scale="dynamic", backend=backend)

    settings = own_settings(scheduled, kind)
    first, second = ([torch.nn.Parameter(torch.ones(4)) for _ in settings] for _ in range(2))
    opt = make([{"params": [p], **s} for p, s in zip(first, settings, strict=True)])
    groups = [{"params": [p], **s} for p, s in zip(second, settings, strict=True)]
    other = make([groups[2], groups[0]])
    opt.param_groups[:] = [opt.param_groups[2], opt.param_groups[0]]
    for _ in range(3):
        values = torch.randn(4, generator=rng.torch)
        for p in (*first, *second):
            p.grad = 65536.0 * values
        for one in (opt, other):
            one.scale(torch.zeros(()))
            one.step()
    assert_same_bits(first, second)
    assert opt.metrics() == other.metrics() and repr(opt) == repr(other)
    assert not any(p in opt.state for p in first[1::2])
    assert saved_groups(opt) == saved_groups(other)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_clip_of_all_gradients_counts_who_is_there(rng, kind, backend, at):
    """Taken out of the list at any place, in mid-run: a gradient has no part in the norm."""
    made = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    norm = schedules.linear(1.0, 0.5, 20)
    groups = [{"params": [p]} for p in made]
    opt = kind.ours(groups, max_grad_norm=norm, always_measure=True, backend=backend)
    for taken in (False, True):
        if taken:
            opt.param_groups.pop(at)
        for p in made:
            p.grad = torch.full((2,), 3.0)
        opt.step()
        expected = (9.0 * 2 * (2 if taken else 3)) ** 0.5
        assert opt.metrics()["grad_norm"] == pytest.approx(expected, rel=1e-6)
        bound = norm(1 if taken else 0) / (expected + 1e-6)
        assert opt.metrics()["clip_coefficient"] == pytest.approx(bound, rel=1e-6)


@either
def test_a_group_that_is_put_back_goes_on(rng, kind, backend, scheduled):
    """Taken out for two steps and put back in another place, by hand or by add_param_group: with
    its counts, moments, settings, and the schedule at the optimizer's step."""
    for by_hand in (True, False):
        made = Edited(rng, kind, own_settings(scheduled, kind), backend)
        made.step(3)
        out = [made.opt.param_groups.pop(2), made.opt.param_groups.pop(2)]
        made.step(2)
        for group in out:
            if by_hand:
                made.opt.param_groups.insert(0, group)
            else:
                made.opt.add_param_group(group)
        made.step(3)
        made.assert_right()
        if kind.counts:
            counts = [float(made.opt.state[p]["step"]) for p in made.params[:3]]
            assert counts == [8.0, 6.0, 6.0]


def test_counts_in_other_memory_are_those_that_are_stepped(rng, backend):
    """A group is taken out and put back, and somebody replaced a count in between, which metrics()
    took over each time: in new memory, though list and states look as they did."""
    params = make_parameters(rng)
    theirs = torch.optim.AdamW([{"params": [p]} for p in twin(params)], lr=0.02)
    ours = lrfused.AdamW([{"params": [p]} for p in params], lr=0.02, backend=backend)
    run(rng, 2, ours, theirs)
    out = ours.param_groups.pop()
    ours.state[params[0]]["step"] = torch.tensor(2.0)
    ours.metrics()
    ours.param_groups.append(out)
    ours.metrics()
    run(rng, 2, ours, theirs)
    assert_near(ours, theirs)
    assert ours.metrics()["steps"] == 4


def test_metrics_right_after_an_edit_are_those_of_the_groups(rng, kind):
    """metrics()["lr"] right after an edit: what the last step used, by group as they stand now; of
    a new group what the next step will use."""
    made = Edited(rng, kind, own_settings(True, kind))
    made.step(2)
    used = [own["lr"](1) for own in own_settings(True, kind)]
    default = made.opt.defaults["lr"]
    assert made.opt.metrics()["lr"] == [used[0], default, *used[1:3]]
    made.opt.param_groups.reverse()
    assert made.opt.metrics()["lr"] == [*used[2:0:-1], default, used[0]]
    made.opt.param_groups.pop(1)
    made.opt.add_param_group(made.more)
    assert made.opt.metrics()["lr"] == [
        used[2],
        default,
        used[0],
        own_settings(True, kind)[3]["lr"](2),
    ]


def load_own(opt):
    opt.load_state_dict(opt.state_dict())


READERS = {
    "metrics": lambda opt: opt.metrics(),
    "state_dict": lambda opt: opt.state_dict(),
    "sync_mirrors": lambda opt: opt.sync_mirrors(),
    "repr": repr,
    "load_state_dict": load_own,
    "scale": lambda opt: opt.scale(torch.ones(())),
    "push": lambda opt: opt.push(),
    "report": lambda opt: lrfused.ReportLR(opt).get_last_lr(),
}


CASES = [(True, 0, False), (True, 3, False), (True, 3, True), (False, 3, True)]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_reading_right_after_an_edit(rng, kind, backend, read):
    """metrics(), state_dict(), load_state_dict(), sync_mirrors(), repr(), scale() after an edit and
    before a step: they see the groups as they are, and the next steps are right; also if the groups
    are then put back as they were."""
    for scheduled, at, back in CASES:
        made = Edited(rng, kind, own_settings(scheduled, kind), backend)
        made.step(at)
        made.opt.param_groups.reverse()
        if read is not READERS["push"] or at == 0:  # which wants a step first
            read(made.opt)
        if back:
            made.opt.param_groups.reverse()
        made.step(2)
        made.assert_right()


def test_an_edited_list_is_saved_as_it_is(rng, kind, backend):
    """A checkpoint right after an edit goes on, bit-equal, in an optimizer made in that form."""
    settings = own_settings(True, kind)
    made, other = (Edited(rng, kind, settings, backend) for _ in range(2))
    made.step(3)
    for one in (made, other):
        one.opt.param_groups.reverse()
        one.opt.param_groups.pop(2)  # the empty one
    saved = copy.deepcopy(made.opt.state_dict())
    assert [len(group["params"]) for group in saved["param_groups"]] == [1, 1, 1]
    other.opt.load_state_dict(saved)
    for a, b in zip(other.params, made.params, strict=True):
        a.data.copy_(b)
    made.step(3, other)
    made.assert_right()
    assert_same_bits(other.params, made.params)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda both: pickle.loads(pickle.dumps(both))}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_copy_of_an_edited_optimizer_goes_on(rng, kind, duplicate, steps):
    """deepcopy and pickle right after an edit and some steps later."""
    made = Edited(rng, kind, own_settings(True, kind))
    made.step(3)
    made.opt.param_groups.reverse()
    made.opt.param_groups.append(copied(made.opt.param_groups.pop(1)))
    made.step(steps)
    out = made.opt.param_groups.pop()
    made.opt, out, made.params = duplicate((made.opt, out, made.params))
    made.step(2)
    made.opt.param_groups.append(out)
    made.step(3)
    made.assert_right()
