"""Checkpoints whose counters are missing or say something else than the steps in the state."""

import copy

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_run,
    give_gradients,
    parameters_of,
    run,
    twin,
    warmup,
)
from lib.contract import make_parameters as parameters
from lib.optimizers import that_counts, without_counts

import lrfused

CARRIED = ("lrfused_step", "lrfused_skipped_steps", "lrfused_loss_scale")


def fresh(kind, params, **options):
    """An optimizer that has done nothing, over equal parameters."""
    return kind.ours(twin(params), lr=warmup(), **options)


def continued_by_torch(rng, kind, opt, steps):
    """A state_dict after so many more steps by torch.optim.AdamW, and that optimizer."""
    theirs = kind.theirs(twin(parameters_of(opt)))
    theirs.load_state_dict(copy.deepcopy(opt.state_dict()))
    run(rng, steps, theirs)
    return theirs


@that_counts
def test_torch_may_go_on_in_between(rng, kind, backend):
    """lrfused 3 steps, torch 40, lrfused again: torch carries our keys along as they were, and the
    schedule goes on at 43, not at 3."""
    opt = kind.ours(parameters(rng), lr=warmup(), backend=backend)
    run(rng, 3, opt)
    theirs = continued_by_torch(rng, kind, opt, 40)
    saved = theirs.state_dict()
    assert saved["param_groups"][0]["lrfused_step"] == 3
    again = fresh(kind, parameters_of(theirs), backend=backend)
    again.load_state_dict(saved)
    assert again.metrics()["steps"] == 43 and again.param_groups[0]["lr"] == warmup()(43)
    theirs.param_groups[0]["lr"] = warmup()(43)
    run(rng, 1, again, theirs)
    assert_near(again, theirs)


def without_ours(saved, key):
    """A checkpoint that lost one of our keys, or with None all of them."""
    saved = copy.deepcopy(saved)
    for group in saved["param_groups"]:
        for name in [n for n in group if n.startswith("lrfused") and key in (n, None)]:
            del group[name]
    return saved


@that_counts
@pytest.mark.parametrize("key", ["lrfused_step", None])
def test_where_the_counter_is_missing_the_largest_step_leads(rng, kind, key):
    """One key of ours that was lost, or all of them."""
    opt = fresh(kind, parameters(rng))
    run(rng, 4, opt)
    saved = without_ours(opt.state_dict(), key)
    other = fresh(kind, parameters_of(opt))
    other.load_state_dict(saved)
    assert other.metrics()["steps"] == 4
    run(rng, 2, opt, other)
    assert_same_run(opt, other)


@without_counts
@pytest.mark.parametrize("key", ["lrfused_step", None])
def test_where_the_counter_is_missing_and_no_step_is_shown_the_load_says_so(rng, kind, key):
    """SGD's and Lion's: the schedule stays where it was, with a warning, until set_step."""
    opt = fresh(kind, parameters(rng))
    run(rng, 4, opt)
    saved = without_ours(opt.state_dict(), key)
    other = fresh(kind, parameters_of(opt))
    run(rng, 1, other)
    for a, b in zip(parameters_of(other), parameters_of(opt), strict=True):
        a.data.copy_(b)
    with pytest.warns(UserWarning, match=r"go on at step 1; optimizer.set_step\(n\)") as seen:
        other.load_state_dict(saved)
    assert len(seen) == 1 and other.metrics()["steps"] == 1
    other.set_step(4)
    run(rng, 2, opt, other)
    assert_same_run(opt, other)


@without_counts
def test_torchs_steps_that_no_state_shows_are_set(rng, kind):
    """SGD's and Lion's, 3 steps by lrfused, 40 by torch: our counter says 3, set_step(43) the
    rest."""
    opt = fresh(kind, parameters(rng))
    run(rng, 3, opt)
    theirs = continued_by_torch(rng, kind, opt, 40)
    again = fresh(kind, parameters_of(theirs))
    again.load_state_dict(theirs.state_dict())
    assert again.metrics()["steps"] == 3
    again.set_step(43)
    assert again.metrics()["steps"] == 43 and again.param_groups[0]["lr"] == warmup()(43)
    theirs.param_groups[0]["lr"] = warmup()(43)
    run(rng, 1, again, theirs)
    assert_near(again, theirs)


@that_counts
def test_a_partial_load_over_a_fresh_state_follows_the_steps(rng, kind):
    """torch.distributed.checkpoint's allow_partial_load leaves our counters at 0 beside steps of
    another optimizer: the largest of them leads."""
    opt = fresh(kind, parameters(rng))
    run(rng, 5, opt)
    saved = copy.deepcopy(opt.state_dict())
    for key in CARRIED:
        saved["param_groups"][0][key].zero_()
    other = fresh(kind, parameters_of(opt))
    other.load_state_dict(saved)
    assert other.metrics()["steps"] == 5
    assert other.param_groups[0]["lr"] == warmup()(5)


def test_a_counter_above_the_steps_is_kept(rng, kind, backend):
    """With advance_schedule_on_skip, or where a parameter had no gradient at last, the counter is
    ahead of every step in the state, and stays there."""
    options = {"advance_schedule_on_skip": True, "nonfinite": "skip", "backend": backend}
    opt = kind.ours(parameters(rng), lr=warmup(), **options)
    run(rng, 2, opt)
    give_gradients(rng, opt)
    parameters_of(opt)[0].grad.fill_(torch.inf)
    opt.step()
    saved = copy.deepcopy(opt.state_dict())
    kind.assert_counts(opt, [2.0] * 4)
    other = fresh(kind, parameters_of(opt), **options)
    other.load_state_dict(saved)
    assert other.metrics()["steps"] == 3 and other.metrics()["skipped_steps"] == 1
    run(rng, 2, opt, other)
    assert_same_run(opt, other)


def test_the_furthest_group_counts(rng, kind):
    """Groups that were put together from several optimizers' states: the largest counter."""
    opt = kind.ours([{"params": [p]} for p in parameters(rng)], lr=warmup())
    run(rng, 2, opt)
    saved = copy.deepcopy(opt.state_dict())
    saved["param_groups"][2]["lrfused_step"].fill_(7)
    opt.load_state_dict(saved)
    assert opt.metrics()["steps"] == 7


@that_counts
def test_state_that_is_replaced_moves_the_schedule(rng, kind, backend):
    """Steps that somebody puts into the state in place of ours (ZeroRedundancyOptimizer loads in
    this way) are loaded ones: the schedule is not behind them."""
    opt = kind.ours(parameters(rng), lr=warmup(), backend=backend)
    run(rng, 2, opt)
    for param in parameters_of(opt):
        opt.state[param] = {k: v.clone() for k, v in opt.state[param].items()}
        opt.state[param]["step"] = torch.tensor(9.0)
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 10 and opt.metrics()["lr"] == [warmup()(9)]


def test_groups_that_are_replaced_are_loaded_ones(rng, kind, backend):
    """Foreign tensors in all groups: counters and loss scale are taken over at the next look, and
    the tensors there are ours again."""
    options = {"loss_scale": lrfused.LossScale(init=8.0, growth_interval=2), "backend": backend}
    opt = kind.ours(parameters(rng), lr=warmup(), **options)
    run(rng, 3, opt)
    saved = copy.deepcopy(opt.state_dict())
    other = fresh(kind, parameters_of(opt), **options)
    own = other.param_groups[0]["lrfused_step"]
    for index, param in enumerate(parameters_of(other)):
        if index in saved["state"]:
            other.state[param] = copy.deepcopy(saved["state"][index])
    other.param_groups[0].update(
        {k: v for k, v in saved["param_groups"][0].items() if k != "params"}
    )
    assert float(other.scale(torch.tensor(1.0))) == opt.metrics()["loss_scale"] == 16.0
    assert other.param_groups[0]["lrfused_step"] is own
    run(rng, 3, opt, other)
    assert_same_run(opt, other)
    assert opt.metrics() == other.metrics()
    assert saved["param_groups"][0]["lrfused_step"] == 3  # what was loaded stays as it is


@pytest.mark.parametrize("is_seen", [False, True])
def test_what_was_loaded_behind_our_back_is_said_truly(rng, kind, is_seen):
    """A number in the groups that were loaded, a schedule here: one warning names the number that
    was loaded, and the schedule leads, whether metrics() or the step looks first."""
    opt = kind.ours(parameters(rng), lr=0.25)
    run(rng, 3, opt)
    saved = copy.deepcopy(opt.state_dict())
    other = fresh(kind, parameters_of(opt))
    for index, param in enumerate(parameters_of(other)):
        if index in saved["state"]:
            other.state[param] = copy.deepcopy(saved["state"][index])
    loaded = {k: v for k, v in saved["param_groups"][0].items() if k != "params"}
    other.param_groups[0].update(loaded)
    with pytest.warns(UserWarning, match=r"lr of group 0 was the number 0\.25 ") as seen:
        if is_seen:
            other.metrics()
            other.param_groups[0].update(loaded)  # as ZeroRedundancyOptimizer does before a step
        run(rng, 1, other)
    assert len(seen) == 1
    assert other.metrics()["lr"] == [warmup()(3)] and other.metrics()["steps"] == 4


def test_one_copied_group_is_no_load(rng, kind):
    """A deep copy of one group of two among the groups, taken after a state_dict(): nothing of it
    is taken for newer than it is."""
    opt = kind.ours(
        [{"params": [p]} for p in parameters(rng)],
        lr=warmup(),
        loss_scale=lrfused.LossScale(init=8.0, growth_interval=2),
    )
    run(rng, 2, opt)
    opt.state_dict()
    group = opt.param_groups[1]
    copied = {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
    run(rng, 4, opt)
    before = opt.metrics()
    opt.param_groups[1] = {**copied, "params": group["params"], "lr": group["lr"]}
    assert opt.metrics() == before
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 7
    assert opt.param_groups[1]["lrfused_step"] is opt.param_groups[0]["lrfused_step"]
