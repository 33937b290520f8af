"""What a caller puts into opt.state besides torch's keys: kept, saved and loaded as in torch."""

import copy

import pytest
import torch
from lib.contract import assert_same_run, make_parameters, parameters_of, run, twin, warmup


def with_entries(opt):
    """Entries of all kinds, of no parameter and of one."""
    opt.state["note"] = "mine"
    opt.state["history"] = {"losses": [1.0, 2.0]}
    opt.state["tensor"] = torch.arange(3)
    opt.state[parameters_of(opt)[0]]["seen"] = 7
    return opt


def test_steps_leave_them_alone(rng, kind, backend):
    """Steps before and after give the bits of a run without them."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), max_grad_norm=1.0, backend=backend)
    plain = kind.ours(twin(parameters_of(opt)), lr=warmup(), max_grad_norm=1.0, backend=backend)
    opt.state["early"] = None
    run(rng, 2, opt, plain)
    with_entries(opt)
    run(rng, 2, opt, plain)
    opt.state["history"]["losses"].append(3.0)
    run(rng, 1, opt, plain)
    assert_same_run(opt, plain)
    assert opt.state["early"] is None and opt.state["note"] == "mine"


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_they_are_saved_and_loaded(rng, kind, side):
    """As with torch.optim.AdamW, of which the same is asked."""
    make = getattr(kind, side)
    opt = make(make_parameters(rng))
    run(rng, 2, opt)
    saved = copy.deepcopy(with_entries(opt).state_dict())
    assert saved["state"]["note"] == "mine" and saved["state"][0]["seen"] == 7
    other = make(twin(parameters_of(opt)))
    other.load_state_dict(saved)
    assert other.state["note"] == "mine"
    assert other.state["history"] == {"losses": [1.0, 2.0]}
    assert torch.equal(other.state["tensor"], torch.arange(3))
    assert other.state[parameters_of(other)[0]]["seen"] == 7
    run(rng, 2, opt, other)
    assert_same_run(opt, other)
    copied = copy.deepcopy(other)
    assert copied.state["note"] == "mine"
    run(rng, 1, copied)


def test_an_entry_may_come_before_the_first_load(rng, kind):
    """accelerate's load_state_dict(state_dict()) of a fresh optimizer that has one."""
    opt = kind.ours(make_parameters(rng), lr=warmup())
    opt.state["note"] = "mine"
    opt.load_state_dict(opt.state_dict())
    run(rng, 2, opt)
    assert opt.metrics()["steps"] == 2 and opt.state["note"] == "mine"
