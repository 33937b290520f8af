"""A checkpoint that cannot be loaded: a clear error, and everything stays as it was."""

import copy

import pytest
import torch

import lrfused
from lrfused import schedules

from .helpers import assert_unchanged, make_parameters, run, snapshot, twin, warmup


def change(*path, to):
    """A function that changes one place of a state_dict."""

    def carry_out(saved):
        place = saved
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return carry_out


OURS = ("param_groups", 0, "lrfused")
BROKEN = {
    "no groups": lambda saved: saved.pop("param_groups"),
    "no state": lambda saved: saved.pop("state"),
    "fewer groups": lambda saved: saved["param_groups"].pop(),
    "fewer parameters": lambda saved: saved["param_groups"][0]["params"].pop(),
    "state of unknown shape": change("state", 0, "exp_avg", to=torch.zeros(3)),
    "second moment too small": change("state", 1, "exp_avg_sq", to=torch.zeros(2)),
    "integer moment": change("state", 0, "exp_avg", to=torch.zeros(7, 5, dtype=torch.int32)),
    "moment that is no tensor": change("state", 0, "exp_avg", to=[1.0]),
    "sparse moment": change("state", 0, "exp_avg", to=torch.zeros(7, 5).to_sparse()),
    "no step": lambda saved: saved["state"][0].pop("step"),
    "negative step": change("state", 0, "step", to=torch.tensor(-3.0)),
    "nan step": change("state", 0, "step", to=torch.tensor(float("nan"))),
    "step that is no number": change("state", 0, "step", to="three"),
    "other version": change(*OURS, "version", to=99),
    "no dictionary": change(*OURS, to=3),
    "no counters": lambda saved: saved["param_groups"][0]["lrfused"].pop("counters"),
    "counters of another kind": change(*OURS, "counters", to=[1, 2]),
    "negative counter": change(*OURS, "counters", "step", to=-1),
    "counter that is no number": change(*OURS, "counters", "step", to="x"),
    "too few counts": change(*OURS, "counts", to=[1]),
    "counts of another kind": change(*OURS, "counts", to=["a"] * 4),
    "products of another kind": change(*OURS, "products", to=[0.5] * 4),
    "nan loss scale": change(*OURS, "loss_scale", to=float("nan")),
    "zero loss scale": change(*OURS, "loss_scale", to=0.0),
    "inputs of another kind": change(*OURS, "inputs", to={"gate": "high"}),
    "options of another kind": change(*OURS, "options", to=None),
    "broken schedule": change(*OURS, "schedules", "lr", "nodes", to=[["fly", None, []]]),
    "betas of another kind": change("param_groups", 0, "betas", to=0.9),
    "nan lr": change("param_groups", 1, "lr", to=float("nan")),
    "lr that is no number": change("param_groups", 1, "lr", to="fast"),
}


@pytest.mark.parametrize("breakage", BROKEN.values(), ids=BROKEN)
def test_a_broken_checkpoint_is_refused_whole(rng, breakage):
    """Anything wrong in a checkpoint: ValueError, TypeError or KeyError; nothing half loaded."""
    gate = torch.tensor(1.0)
    opt = lrfused.AdamW(
        [
            {"params": make_parameters(rng), "lr": warmup() * schedules.input(gate, "gate")},
            {"params": make_parameters(rng), "lr": 0.1},
        ],
        loss_scale="dynamic",
    )
    run(rng, 3, opt)
    saved = copy.deepcopy(opt.state_dict())
    breakage(saved)
    run(rng, 2, opt)
    before = snapshot(opt)
    with pytest.raises((ValueError, TypeError, KeyError)) as error:
        opt.load_state_dict(saved, load_schedules=True)
    assert len(str(error.value)) > 5
    assert_unchanged(opt, before)
    assert gate == 1.0
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 6


@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"])
@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros(13, 1), torch.zeros(13).long(), 1.0])
def test_state_of_the_wrong_kind_is_refused_by_the_step(rng, key, value):
    """Moments that the caller replaced by others of another shape or kind: an error, no crash."""
    opt = lrfused.AdamW(make_parameters(rng), amsgrad=True)
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
    assert float(opt.state[param]["step"]) == 3.0
