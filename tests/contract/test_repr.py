"""repr(optimizer): torch's, with schedules, clips, loss scale and the options that were given."""

import pytest
import torch
from lib.contract import make_parameters, run, warmup

import lrfused
from lrfused import schedules

GIVEN = {
    "max_grad_norm": 0.5,
    "norm_type": torch.inf,
    "nonfinite": "skip",
    "accumulation_steps": 4,
    "advance_schedule_on_skip": True,
    "write_grads": True,
    "always_measure": True,
    "loss_scale": 1024.0,
}
IN_A_GROUP = {
    "clip_value": 0.25,
    "agc": 0.125,
    "agc_by": "tensor",
    "weight_decay_mode": "independent",
    "bias_correction": "product",
    "start_step": 7,
    "peak_lr": 0.5,
}


def shown(opt):
    """The lines of every group, and of the part about all of them, as dictionaries."""
    parts, found = repr(opt).replace("All groups", "\nParameter Group all"), {}
    for part in parts.split("\nParameter Group ")[1:]:
        name, *lines = part.strip(")").strip().splitlines()
        found[name] = dict(line.strip().split(": ", 1) for line in lines)
    return found


def test_without_options_it_is_torchs(rng):
    """Nothing but torch's keys where nothing else was given."""
    params = make_parameters(rng)
    theirs, ours = torch.optim.AdamW(params, lr=0.1), lrfused.AdamW(params, lr=0.1)
    assert repr(ours) == repr(theirs)
    run(rng, 2, ours)
    ours.state_dict()
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", GIVEN)
def test_an_option_that_was_given_is_shown(rng, name):
    """Every option of the optimizer, once, apart from the groups."""
    groups = [{"params": make_parameters(rng)}, {"params": make_parameters(rng)}]
    opt = lrfused.AdamW(groups, **{name: GIVEN[name]})
    assert shown(opt)["all"] == {name: str(GIVEN[name])}
    assert all(name not in lines for group, lines in shown(opt).items() if group != "all")


@pytest.mark.parametrize("name", IN_A_GROUP)
def test_an_option_of_a_group_is_shown_there(rng, name):
    """And in no other group."""
    own = {name: IN_A_GROUP[name], **({"agc": 0.125} if name == "agc_by" else {})}
    opt = lrfused.AdamW([{"params": make_parameters(rng)}, {"params": make_parameters(rng), **own}])
    lines = shown(opt)
    assert lines["1"].items() >= {key: str(value) for key, value in own.items()}.items()
    assert lines["0"].keys() == lines["1"].keys() - IN_A_GROUP.keys()


def test_schedules_are_shown_beside_their_present_values(rng):
    """lr, betas, eps, weight_decay with the number and what it follows; clips as the schedule."""
    lr, limit = warmup(), schedules.linear(1.0, 0.5, 9)
    own = {"lr": lr, "betas": (limit / 2, 0.9), "clip_value": limit, "weight_decay": limit}
    opt = lrfused.AdamW([{"params": make_parameters(rng), **own}], max_grad_norm=limit)
    run(rng, 3, opt)
    lines = shown(opt)
    assert lines["0"]["lr"] == str(lr(3)) and lines["0"]["lr follows"] == repr(lr)
    assert lines["0"]["betas"] == str(((limit / 2)(3), 0.9))
    assert lines["0"]["betas[0] follows"] == repr(limit / 2)
    assert lines["0"]["weight_decay follows"] == lines["0"]["clip_value"] == repr(limit)
    assert lines["all"] == {"max_grad_norm": repr(limit)}
    assert "betas[1] follows" not in lines["0"] and "eps follows" not in lines["0"]


def test_the_loss_scales_policy_is_shown(rng):
    """A dynamic one as the LossScale that it is."""
    policy = lrfused.LossScale(init=16.0, growth_interval=5)
    for given, wanted in ((policy, policy), ("dynamic", lrfused.LossScale())):
        opt = lrfused.AdamW(make_parameters(rng), loss_scale=given)
        assert shown(opt)["all"] == {"loss_scale": str(wanted)}


def test_what_checkpoints_carry_is_not_shown(rng):
    """No key that starts with "lrfused", in a group that was there from the beginning, a copy, and
    one put in by hand."""
    opt = lrfused.AdamW(make_parameters(rng), lr=warmup())
    opt.param_groups.append({**opt.param_groups[0], "params": []})
    group = torch.optim.AdamW(make_parameters(rng)).param_groups[0]
    opt.param_groups.append({**group, "clip_value": 0.25, "lr": warmup()})
    for _ in range(2):
        lines = shown(opt)
        assert not any("lrfused" in key for one in lines.values() for key in one)
        assert lines["2"]["clip_value"] == "0.25" and len(lines) == 3
        opt.state_dict()


def test_a_subclass_has_its_own_name(rng):
    """And shows the same of what it was given, also keys of its own."""

    class Mine(lrfused.AdamW):
        pass

    opt = Mine([{"params": make_parameters(rng), "who": "me"}], lr=warmup(), clip_value=0.25)
    assert repr(opt).startswith("Mine (\nParameter Group 0\n")
    assert shown(opt)["0"]["who"] == "me" and shown(opt)["0"]["clip_value"] == "0.25"
