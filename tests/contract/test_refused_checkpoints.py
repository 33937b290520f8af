"""A checkpoint that cannot be loaded: a clear error, and everything stays as it was."""

import copy
import json

import pytest
import torch
from lib.contract import assert_unchanged, make_parameters, run, snapshot, twin, warmup
from lib.optimizers import KINDS, every_moment

from lrfused import schedules


def change(*path, to):
    """A function that changes one place of a state_dict."""

    def carry_out(saved):
        place = saved
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return carry_out


def change_text(*path, to):
    """A function that changes one place of what the first group's text says."""

    def carry_out(saved):
        group = saved["param_groups"][0]
        text = {"text": json.loads(group["lrfused"])}
        change("text", *path, to=to)(text)
        group["lrfused"] = json.dumps(text["text"])

    return carry_out


GROUP = ("param_groups", 0)
BROKEN = {
    "no groups": lambda saved: saved.pop("param_groups"),
    "no state": lambda saved: saved.pop("state"),
    "fewer groups": lambda saved: saved["param_groups"].pop(),
    "fewer parameters": lambda saved: saved["param_groups"][0]["params"].pop(),
    "other version": change_text("version", to=99),
    "no text": change(*GROUP, "lrfused", to=3),
    "no JSON": change(*GROUP, "lrfused", to="{"),
    "a list": change(*GROUP, "lrfused", to="[]"),
    "negative counter": change(*GROUP, "lrfused_step", to=-3),
    "a step beyond counts": change(*GROUP, "lrfused_step", to=torch.tensor(2.0**53).double()),
    "fraction of a step": change(*GROUP, "lrfused_step", to=torch.tensor(0.5)),
    "counter that is no number": change(*GROUP, "lrfused_skipped_steps", to="x"),
    "nan loss scale": change(*GROUP, "lrfused_loss_scale", to=float("nan")),
    "negative loss scale": change(*GROUP, "lrfused_loss_scale", to=torch.tensor(-1.0)),
    "tiny loss scale": change(*GROUP, "lrfused_loss_scale", to=1e-60),
    "inputs of another kind": change_text("inputs", "lr", to={"gate": "high"}),
    "options of another kind": change_text("options", to=None),
    "broken schedule": change_text("schedules", "lr", "nodes", to=[["fly", None, []]]),
    "no nodes": change_text("schedules", "lr", to={"version": 1}),
    "a table that is not there": change_text(
        "schedules", "lr", "nodes", to=[["step", None, []], ["table", "abc", [0]]]
    ),
    "decay of another kind": change("param_groups", 0, "weight_decay", to=[0.9]),
    "nan lr": change("param_groups", 1, "lr", to=float("nan")),
    "lr that is no number": change("param_groups", 1, "lr", to="fast"),
    "a switch for an lr": change("param_groups", 1, "lr", to=True),
}


OF_COUNTS = {
    "no step": lambda saved: saved["state"][0].pop("step"),
    "negative step": change("state", 0, "step", to=torch.tensor(-3.0)),
    "nan step": change("state", 0, "step", to=torch.tensor(float("nan"))),
    "step that is no number": change("state", 0, "step", to="three"),
    "product above 1": change("state", 0, "lrfused_beta1_product", to=torch.tensor(1.5).double()),
}
OF_BETAS = {"betas of another kind": change("param_groups", 0, "betas", to=0.9)}


def of_moment(key):
    """What is wrong with a moment."""
    return {
        f"{key} of unknown shape": change("state", 0, key, to=torch.zeros(3)),
        f"{key} too small": change("state", 1, key, to=torch.zeros(2)),
        f"{key} of integers": change("state", 0, key, to=torch.zeros(7, 5, dtype=torch.int32)),
        f"{key} that is no tensor": change("state", 0, key, to=[1.0]),
        f"sparse {key}": change("state", 0, key, to=torch.zeros(7, 5).to_sparse()),
    }


def broken_of(kind):
    """All that may be wrong with a checkpoint of this kind of optimizer."""
    found = {**BROKEN, **(OF_COUNTS if kind.counts else {})}
    for key in kind.moments:
        found |= of_moment(key)
    if "lrfused_buffer_written" in kind.keys:
        beyond = torch.tensor(1.5, dtype=torch.float64)
        found |= {"mark above 1": change("state", 0, "lrfused_buffer_written", to=beyond)}
    return {**found, **(OF_BETAS if "betas" in kind.hyperparameters else {})}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.name}-{name}")
        for kind in KINDS
        for name in broken_of(kind)
    ],
)
def test_a_broken_checkpoint_is_refused_whole(rng, kind, name):
    """Anything wrong in a checkpoint: ValueError, TypeError or KeyError; nothing half loaded."""
    gate = torch.tensor(1.0)
    opt = kind.ours(
        [
            {"params": make_parameters(rng), "lr": warmup() * schedules.input(gate, "gate")},
            {"params": make_parameters(rng), "lr": 0.1},
        ],
        loss_scale="dynamic",
        **kind.carrying,
    )
    run(rng, 3, opt)
    saved = copy.deepcopy(opt.state_dict())
    broken_of(kind)[name](saved)
    run(rng, 2, opt)
    before = snapshot(opt)
    with pytest.raises((ValueError, TypeError, KeyError)) as error:
        opt.load_state_dict(saved, load_schedules=True)
    assert len(str(error.value)) > 5
    assert_unchanged(opt, before)
    assert gate == 1.0
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 6


@every_moment
@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros(13, 1), torch.zeros(13).long(), 1.0])
def test_state_of_the_wrong_kind_is_refused_by_the_step(rng, kind, key, value):
    """Moments that the caller replaced by others of another shape or kind: an error, no crash."""
    opt = kind.ours(make_parameters(rng), **kind.widest)
    run(rng, 2, opt)
    param = opt.param_groups[0]["params"][1]
    good = opt.state[param][key]
    others = twin(opt.param_groups[0]["params"])
    opt.state[param][key] = value
    with pytest.raises((ValueError, TypeError), match=key):
        run(rng, 1, opt)
    opt.state[param][key] = good
    for p, kept in zip(opt.param_groups[0]["params"], others, strict=True):
        torch.testing.assert_close(p, kept, rtol=0, atol=0)
    run(rng, 1, opt)
    kind.assert_counts(opt, [3.0] * 4)
    assert opt.metrics()["steps"] == 3
