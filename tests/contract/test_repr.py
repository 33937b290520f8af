"""repr(optimizer): torch's, with schedules, clips, loss scale and the options that were given."""

import pytest
import torch
from lib.contract import make_parameters, run, warmup
from lib.optimizers import CLASSES

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


def test_without_options_it_is_torchs(rng, kind):
    """Nothing but torch's keys where nothing else was given."""
    params = make_parameters(rng)
    theirs, ours = kind.theirs(params, lr=0.1), kind.ours(params, lr=0.1)
    expected = repr(theirs).replace(type(theirs).__name__, type(ours).__name__)
    assert repr(ours) == expected
    run(rng, 2, ours)
    ours.state_dict()
    assert repr(ours) == expected


@pytest.mark.parametrize("name", GIVEN)
def test_an_option_that_was_given_is_shown(rng, kind, name):
    """Every option of the optimizer, once, apart from the groups."""
    groups = [{"params": make_parameters(rng)}, {"params": make_parameters(rng)}]
    opt = kind.ours(groups, **{name: GIVEN[name]})
    assert shown(opt)["all"] == {name: str(GIVEN[name])}
    assert all(name not in lines for group, lines in shown(opt).items() if group != "all")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.name}-{name}")
        for kind in CLASSES
        for name in (*IN_A_GROUP, *kind.carrying)
    ],
)
def test_an_option_of_a_group_is_shown_there(rng, kind, name):
    """And in no other group."""
    own = {
        name: {**IN_A_GROUP, **kind.carrying}[name],
        **({"agc": 0.125} if name == "agc_by" else {}),
    }
    opt = kind.ours([{"params": make_parameters(rng)}, {"params": make_parameters(rng), **own}])
    lines = shown(opt)
    assert lines["1"].items() >= {key: str(value) for key, value in own.items()}.items()
    assert lines["0"].keys() == lines["1"].keys() - {*IN_A_GROUP, *kind.carrying}


def test_schedules_are_shown_beside_their_present_values(rng, kind):
    """lr, betas, eps, weight_decay with the number and what it follows; clips as the schedule."""
    limit = schedules.linear(1.0, 0.5, 9)
    scheduled = {"lr": warmup(), **kind.scheduled}
    opt = kind.ours([{"params": make_parameters(rng), **scheduled, "clip_value": limit}])
    run(rng, 3, opt)
    lines = shown(opt)["0"]
    followed = {key: value for key, value in scheduled.items() if key != "betas"}
    assert {key: lines[key] for key in followed} == {k: str(v(3)) for k, v in followed.items()}
    if "betas" in scheduled:
        assert lines["betas"] == str(tuple(beta(3) for beta in scheduled["betas"]))
        followed |= {f"betas[{place}]": beta for place, beta in enumerate(scheduled["betas"])}
    follows = {key: text for key, text in lines.items() if "follows" in key}
    assert follows == {f"{key} follows": repr(schedule) for key, schedule in followed.items()}
    assert lines["clip_value"] == repr(limit)


def test_a_number_beside_a_schedule_follows_nothing(rng, kind):
    """A scheduled clip stands once, among all groups, and of betas the one that is scheduled."""
    limit = schedules.linear(1.0, 0.5, 9)
    pair = {"betas": (limit / 2, 0.9)} if "betas" in kind.hyperparameters else {}
    opt = kind.ours(make_parameters(rng), max_grad_norm=limit, **pair)
    lines = shown(opt)
    assert lines["all"] == {"max_grad_norm": repr(limit)}
    assert [key for key in lines["0"] if "follows" in key] == ["betas[0] follows"] * len(pair)


def test_the_loss_scales_policy_is_shown(rng, kind):
    """A dynamic one as the LossScale that it is."""
    policy = lrfused.LossScale(init=16.0, growth_interval=5)
    for given, wanted in ((policy, policy), ("dynamic", lrfused.LossScale())):
        opt = kind.ours(make_parameters(rng), loss_scale=given)
        assert shown(opt)["all"] == {"loss_scale": str(wanted)}


def test_what_checkpoints_carry_is_not_shown(rng, kind):
    """No key that starts with "lrfused", in a group that was there from the beginning, a copy, and
    one put in by hand."""
    opt = kind.ours(make_parameters(rng), lr=warmup())
    opt.param_groups.append({**opt.param_groups[0], "params": []})
    group = kind.theirs(make_parameters(rng)).param_groups[0]
    opt.param_groups.append({**group, "clip_value": 0.25, "lr": warmup()})
    for _ in range(2):
        lines = shown(opt)
        assert not any("lrfused" in key for one in lines.values() for key in one)
        assert lines["2"]["clip_value"] == "0.25" and len(lines) == 3
        opt.state_dict()


def test_a_subclass_has_its_own_name(rng, kind):
    """And shows the same of what it was given, also keys of its own."""

    class Mine(kind.cls):
        pass

    opt = Mine([{"params": make_parameters(rng), "who": "me"}], lr=warmup(), clip_value=0.25)
    assert repr(opt).startswith("Mine (\nParameter Group 0\n")
    assert shown(opt)["0"]["who"] == "me" and shown(opt)["0"]["clip_value"] == "0.25"
