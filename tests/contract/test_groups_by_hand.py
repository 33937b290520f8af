"""Groups that the caller puts into param_groups by hand, without add_param_group."""

import copy

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_bits,
    assert_unchanged,
    give_gradients,
    make_parameters,
    run,
    snapshot,
    twin,
    warmup,
)
from lib.optimizers import ADAMW, with_betas
from torch.nn import Parameter

from lrfused import schedules

from .edits import copied, saved_groups

in_mid_run = pytest.mark.parametrize("at", [0, 3])


def by_hand(kind, params, **others):
    """A group with all of torch's keys, as torch's own optimizer writes them."""
    group = kind.theirs([Parameter(torch.ones(1))]).param_groups[0]
    return {**group, "params": params, **others}


def both_ways(rng, kind, backend, at, **own):
    """An optimizer with a group put in by hand, and one that got it from add_param_group."""
    first, second, own = make_parameters(rng), make_parameters(rng), {"lr": 0.1, **own}
    hand, added = (kind.ours(p, lr=warmup(), backend=backend) for p in (first, twin(first)))
    run(rng, at, hand, added)
    hand.param_groups.append(by_hand(kind, second, **own))
    added.add_param_group({"params": twin(second), **own})
    return hand, added


OWN = {
    "numbers": {"lr": 0.1},
    "schedules": {"lr": warmup(0.1), "who": "me"},
    "options": {"lr": 0.1, "clip_value": 0.3, "start_step": 4},
    "decay": {"lr": warmup(0.1), "weight_decay_mode": "lr_ratio", "peak_lr": 0.1},
    "scheduled options": {"clip_value": warmup(0.5), "agc": warmup(0.2), "agc_by": "tensor"},
    "a tensor": {"lr": torch.tensor(0.1), "lr_scale": 0.5},
    "a scaled schedule": {"lr": warmup(0.1), "lr_scale": 0.5},
}


def own_of(kind, name):
    """With what this kind of optimizer has."""
    more = {
        "numbers": {**kind.numbers, **kind.widest},
        "schedules": kind.scheduled,
        "options": kind.carrying,
    }
    return {**OWN[name], **more.get(name, {})}


@in_mid_run
@pytest.mark.parametrize("name", OWN)
def test_a_group_by_hand_is_one_that_was_added(rng, kind, backend, at, name):
    """A dictionary with all of torch's keys, appended to the list: as if add_param_group had got
    it, with Schedules, this class's options, and keys of others."""
    hand, added = both_ways(rng, kind, backend, at, **own_of(kind, name))
    run(rng, 6, hand, added)
    assert_same_bits(hand.param_groups[1]["params"], added.param_groups[1]["params"])
    assert hand.metrics() == added.metrics()
    assert saved_groups(hand) == saved_groups(added)


def test_a_group_of_torchs_optimizer_is_taken(rng, kind, backend):
    """The dictionary of a torch.optim.AdamW: stepped as there."""
    theirs = kind.theirs(make_parameters(rng), lr=0.1, **kind.numbers, maximize=True)
    ours = kind.ours(make_parameters(rng), lr=warmup(), backend=backend)
    ours.param_groups[:] = [copied(theirs.param_groups[0])]
    ours.param_groups[0]["params"] = twin(theirs.param_groups[0]["params"])
    run(rng, 4, ours, theirs)
    assert_near(ours, theirs)


BROKEN = {
    "no lr": (lambda group: group.pop("lr"), ValueError, r"param_groups\[1\]: has no 'lr'"),
    "no decay": (lambda group: group.pop("weight_decay"), ValueError, r"has no 'weight_decay'"),
    "no maximize": (lambda group: group.pop("maximize"), ValueError, r"\[1\]: has no 'maximize'"),
    "no params": (lambda group: group.pop("params"), ValueError, r"\[1\]: has no 'params'"),
    "bad lr": (lambda group: group.update(lr=-1.0), ValueError, r"\[1\]: lr: must not be"),
    "a lambda": (lambda group: group.update(lr=abs), TypeError, r"\[1\]: lr: must be a number"),
    "bad option": (lambda group: group.update(agc=-1.0), ValueError, r"\[1\]: agc: must not be"),
    "bad scale": (
        lambda group: group.update(lr=warmup(), lr_scale=-1.0),
        ValueError,
        r"\[1\]: lr_scale: must not be negative",
    ),
}
BROKEN_PAIRS = {
    "no betas": (lambda group: group.pop("betas"), ValueError, r"\[1\]: has no 'betas'"),
    "bad betas": (lambda group: group.update(betas=0.5), ValueError, r"\[1\]: betas: must be a"),
}
NO_SWITCH = (lambda group: group.pop("amsgrad"), ValueError, r"\[1\]: has no 'amsgrad'")


@in_mid_run
@with_betas
@pytest.mark.parametrize("broken", BROKEN_PAIRS.values(), ids=BROKEN_PAIRS)
def test_a_broken_pair_is_named(rng, kind, backend, at, broken):
    """So it is with betas that are missing or no pair."""
    broken_group_is_named(rng, kind, backend, at, broken)


@in_mid_run
def test_a_missing_switch_is_named(rng, backend, at):
    """So it is with AdamW's amsgrad."""
    broken_group_is_named(rng, ADAMW, backend, at, NO_SWITCH)


@in_mid_run
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_group_is_named(rng, kind, backend, at, broken):
    """A key is missing, or a value cannot be: the next step, metrics() and state_dict() name the
    place and what is wrong; nothing has changed, and without that group all is well."""
    broken_group_is_named(rng, kind, backend, at, broken)


def broken_group_is_named(rng, kind, backend, at, broken):
    damage, error, message = broken
    opt = kind.ours(make_parameters(rng), lr=warmup(), backend=backend)
    run(rng, at, opt)
    before = snapshot(opt)
    group = by_hand(kind, make_parameters(rng))
    damage(group)
    kept = dict(group)
    opt.param_groups.append(group)
    if "params" in group:
        give_gradients(rng, opt)
    for ask in (opt.step, opt.metrics, opt.state_dict, lambda: opt.load_state_dict({"state": {}})):
        with pytest.raises(error, match=message):
            ask()
    assert group == kept and len(opt.param_groups) == 2
    opt.param_groups.pop()
    assert_unchanged(opt, before)
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == at + 1


@in_mid_run
@pytest.mark.parametrize("thing", ["a name", None, 3, [Parameter(torch.ones(1))]])
def test_what_is_no_dictionary_is_named(rng, kind, at, thing):
    """TypeError with place and type, before anything has changed."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), loss_scale="dynamic")
    run(rng, at, opt)
    before = snapshot(opt)
    give_gradients(rng, opt)
    opt.param_groups.insert(0, thing)
    name = type(thing).__name__
    for ask in (opt.step, opt.metrics, opt.state_dict, opt.sync_mirrors):
        with pytest.raises(TypeError, match=rf"param_groups\[0\]: must be a dict, got {name}"):
            ask()
    opt.param_groups.pop(0)
    assert_unchanged(opt, before)


@in_mid_run
def test_a_copy_that_lost_a_key_is_named(rng, kind, at):
    """Of a group that was there before: the key and the place, and the step has not begun."""
    opt = kind.ours(make_parameters(rng), lr=warmup())
    run(rng, at, opt)
    before, group = snapshot(opt), opt.param_groups[0]
    opt.param_groups[0] = {key: value for key, value in group.items() if key != "weight_decay"}
    give_gradients(rng, opt)
    with pytest.raises(ValueError, match=r"param_groups\[0\]: has no 'weight_decay'"):
        opt.step()
    opt.param_groups[0] = group
    assert_unchanged(opt, before)


@in_mid_run
@pytest.mark.parametrize("copier", [dict, copy.copy, copy.deepcopy])
def test_a_copy_beside_the_original_has_settings_of_its_own(rng, kind, backend, at, copier):
    """A copy of a group with other parameters has the schedules and options of the original, and
    from then on its own: a Schedule written to one is not the other's."""
    first, second = make_parameters(rng), make_parameters(rng)
    own = {"lr": warmup(), "clip_value": 0.3, "weight_decay_mode": "independent"}
    opt = kind.ours([{"params": first, **own}], backend=backend)
    other = kind.ours([{"params": twin(first), **own}], backend=backend)
    run(rng, at, opt, other)
    opt.param_groups.insert(0, {**copied(opt.param_groups[0], copier), "params": second})
    other.add_param_group({"params": twin(second), **own})
    other.param_groups.reverse()
    run(rng, 2, opt, other)
    for one in (opt, other):
        one.param_groups[1]["lr"] = schedules.linear(0.5, 0.1, 20)
    run(rng, 3, opt, other)
    assert [g["lr"] for g in opt.param_groups] == [warmup()(at + 5), opt.param_groups[1]["lr"]]
    assert opt.metrics() == other.metrics()
    assert saved_groups(opt) == saved_groups(other)


def test_a_copy_of_the_only_group_is_no_checkpoint(rng, kind, backend):
    """A deepcopy in place of the only group, also of before the last state_dict(): counters, loss
    scale and a number over a schedule stay as they are."""
    opt = kind.ours(
        make_parameters(rng), lr=warmup(), loss_scale="dynamic", nonfinite="skip", backend=backend
    )
    old = copied(opt.param_groups[0])
    for scale in (torch.inf, 1.0, 1.0):
        give_gradients(rng, opt, scale=scale)
        opt.step()
    opt.state_dict()
    opt.param_groups[0]["lr"] = 0.25
    with pytest.warns(UserWarning, match="overrides"):
        run(rng, 1, opt)
    before = opt.metrics()
    assert (before["skipped_steps"], before["loss_scale"]) == (1, 32768.0)
    for group in (copied(opt.param_groups[0]), {**old, "lr": 0.25}):
        opt.param_groups[0] = group
        assert opt.metrics() == before and opt.param_groups[0]["lr"] == 0.25
    run(rng, 1, opt)
    assert opt.metrics()["lr"] == [0.25] and opt.metrics()["steps"] == 4


def test_one_parameter_in_two_groups_is_refused(rng, kind, backend):
    """A copy of a group beside it, with the same parameters: the step says so."""
    opt = kind.ours(make_parameters(rng), backend=backend)
    run(rng, 2, opt)
    before = snapshot(opt)
    opt.param_groups.append(dict(opt.param_groups[0]))
    with pytest.raises(ValueError, match="params: two parameters share memory"):
        opt.step()
    opt.param_groups.pop()
    assert_unchanged(opt, before)
