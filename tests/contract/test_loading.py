"""``load_state_dict``: older checkpoints, in place, schedules, refused input."""

import copy
import io
import warnings

import pytest
import torch
from lib.contract import (
    assert_same_run,
    assert_unchanged,
    make_parameters,
    parameters_of,
    run,
    snapshot,
    twin,
    warmup,
)
from lib.optimizers import that_counts, with_state

from lrfused import schedules


def fresh_like(kind, opt, **options):
    """A new optimizer over equal parameters."""
    return kind.ours(twin(parameters_of(opt)), **options)


@that_counts
@pytest.mark.parametrize(
    "convert",
    [int, float, lambda s: s.double(), lambda s: s.long(), lambda s: s.clone().reshape(1)],
    ids=["int", "float", "float64", "int64", "one element"],
)
def test_older_step_counts_load(rng, kind, convert):
    """Steps that are Python numbers, float64, int64 or one-element tensors load."""
    lr = warmup()
    opt = kind.ours(make_parameters(rng), lr=lr)
    run(rng, 5, opt)
    saved = opt.state_dict()
    for group in saved["param_groups"]:
        for key in [key for key in group if key.startswith("lrfused")]:
            del group[key]
    for state in saved["state"].values():
        state["step"] = convert(state["step"])
    other = fresh_like(kind, opt, lr=lr)
    other.load_state_dict(saved)
    for state in other.state.values():
        assert state["step"].dtype == torch.float32 and state["step"].shape == ()
    assert_same_run(other, opt)
    run(rng, 3, opt, other)
    assert_same_run(other, opt)


def test_a_checkpoint_mapped_to_the_cpu_loads(rng, kind, backend):
    """torch.load(map_location="cpu", weights_only=True): loads, and the run goes on bit-equal."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), loss_scale="dynamic", backend=backend)
    run(rng, 3, opt)
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    other = fresh_like(kind, opt, lr=warmup(), loss_scale="dynamic", backend=backend)
    other.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    run(rng, 3, opt, other)
    assert_same_run(other, opt)


@that_counts
def test_counts_beyond_float32_load_exactly(rng, kind):
    """The count is int64: 2**24 + 3 updates are as many after loading, copying, and a step."""
    opt = kind.ours(make_parameters(rng))
    run(rng, 1, opt)
    for state in opt.state.values():
        state["step"].fill_(2.0**24)
    run(rng, 3, opt)
    saved = opt.state_dict()
    other = fresh_like(kind, opt)
    other.load_state_dict(saved)

    def counts(each):
        return [int(state["step"]) for state in each.state_dict()["state"].values()]

    for each in (opt, other, copy.deepcopy(opt)):
        assert counts(each) == [2**24 + 3] * 4
        run(rng, 2, each)
        assert counts(each) == [2**24 + 5] * 4
        assert all(state["step"].dtype == torch.float32 for state in each.state.values())


def test_checkpoints_of_older_torch_versions_load(rng, kind):
    """Groups without amsgrad, maximize, foreach, capturable, fused, ... get their defaults."""
    opt = kind.ours(make_parameters(rng))
    run(rng, 3, opt)
    saved = opt.state_dict()
    known = ("params", *kind.hyperparameters)
    saved["param_groups"] = [{k: g[k] for k in known} for g in saved["param_groups"]]
    other = fresh_like(kind, opt)
    other.load_state_dict(saved)
    run(rng, 2, opt, other)
    assert_same_run(other, opt)
    assert sorted(other.param_groups[0]) == sorted(opt.param_groups[0])


def test_an_empty_dictionary_loads(rng, kind, backend):
    """load_state_dict({}) changes nothing."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), backend=backend)
    run(rng, 3, opt)
    before = snapshot(opt)
    opt.load_state_dict({})
    assert_unchanged(opt, before)


def test_a_fresh_optimizer_loads_its_own_state(rng, kind):
    """accelerate's load_state_dict(state_dict()) on a fresh optimizer: as if it had not been."""
    params = make_parameters(rng)
    other = kind.ours(twin(params), lr=warmup(), loss_scale="dynamic")
    opt = kind.ours(params, lr=warmup(), loss_scale="dynamic")
    opt.load_state_dict(opt.state_dict())
    assert not opt.state
    run(rng, 4, opt, other)
    assert_same_run(opt, other)
    assert opt.param_groups[0]["lr"] == other.param_groups[0]["lr"]


@with_state
def test_loading_copies_in_place(rng, kind, backend):
    """Moments and step counts keep their addresses, so a captured graph stays valid."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), **kind.widest, backend=backend)
    run(rng, 3, opt)
    saved = copy.deepcopy(opt.state_dict())
    held = {
        k: v for i, s in enumerate(opt.state.values()) for k, v in ((f"{i}{n}", s[n]) for n in s)
    }
    addresses = {k: v.data_ptr() for k, v in held.items()}
    run(rng, 2, opt)
    opt.load_state_dict(saved)
    now = {
        k: v for i, s in enumerate(opt.state.values()) for k, v in ((f"{i}{n}", s[n]) for n in s)
    }
    assert {k: v.data_ptr() for k, v in now.items()} == addresses
    kind.assert_counts(opt, [3.0] * 4)
    assert opt.param_groups[0]["lr"] == warmup()(3)


def test_loaded_state_is_our_own_memory(rng, kind, backend):
    """Two optimizers that loaded one state_dict do not move each other."""
    opt = kind.ours(make_parameters(rng), backend=backend)
    run(rng, 3, opt)
    saved = opt.state_dict()
    kept = copy.deepcopy(saved)
    a, b = fresh_like(kind, opt, backend=backend), fresh_like(kind, opt, backend=backend)
    a.load_state_dict(saved)
    run(rng, 3, a)
    b.load_state_dict(kept)
    assert_same_run(b, opt)


def test_loading_keeps_the_dtype_of_the_state(rng, kind):
    """Moments that were float32 beside bfloat16 parameters stay float32."""
    opt = kind.ours(make_parameters(rng, torch.bfloat16))
    run(rng, 1, opt)
    for state in opt.state.values():
        for key in kind.moments:
            state[key] = state[key].float()
    run(rng, 2, opt)
    other = fresh_like(kind, opt)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert_same_run(other, opt)
    run(rng, 2, opt, other)
    assert_same_run(other, opt)


def test_the_constructors_schedules_win_with_one_warning(rng, kind):
    """Stored schedules and options that differ: the constructor's stay, one warning names them."""
    opt = kind.ours(make_parameters(rng), lr=warmup(0.1), clip_value=1.0)
    run(rng, 3, opt)
    other = fresh_like(kind, opt, lr=warmup(0.2), max_grad_norm=1.0)
    with pytest.warns(UserWarning, match=r"lr of group 0.*clip") as seen:
        other.load_state_dict(opt.state_dict())
    assert [w.filename for w in seen] == [__file__]
    assert other.param_groups[0]["lr"] == warmup(0.2)(3)
    run(rng, 1, other)
    assert other.param_groups[0]["lr"] == warmup(0.2)(4)


def test_load_schedules_takes_the_stored_ones(rng, kind):
    """load_schedules=True takes the stored schedules, of lr and all others."""
    decay = schedules.linear(0.5, 0.0, 30)
    opt = kind.ours(make_parameters(rng), lr=warmup(0.1), weight_decay=decay)
    run(rng, 3, opt)
    other = fresh_like(kind, opt, lr=warmup(0.2))
    other.load_state_dict(opt.state_dict(), load_schedules=True)
    assert other.param_groups[0]["lr"] == warmup(0.1)(3)
    assert other.param_groups[0]["weight_decay"] == decay(3)
    run(rng, 5, opt, other)
    assert_same_run(other, opt)


def test_equal_schedules_load_without_a_warning(rng, kind):
    """The same schedules and options, built anew: nothing to warn of."""
    options = {"max_grad_norm": 1.0, "agc": 0.1, "maximize": True, **kind.scheduled}
    opt = kind.ours(make_parameters(rng), lr=warmup(), **options)
    run(rng, 3, opt)
    other = fresh_like(kind, opt, lr=warmup(), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.load_state_dict(opt.state_dict())
        run(rng, 3, opt, other)
    assert_same_run(other, opt)


def test_inputs_get_their_values_back(rng, kind):
    """The values of a schedule's inputs are restored."""

    def build(params):
        gate = torch.tensor(1.0)
        return kind.ours(params, lr=warmup() * schedules.input(gate, "gate")), gate

    opt, gate = build(make_parameters(rng))
    gate.fill_(0.25)
    run(rng, 3, opt)
    other, other_gate = build(twin(parameters_of(opt)))
    other.load_state_dict(opt.state_dict())
    assert other_gate == 0.25
    run(rng, 3, opt, other)
    assert_same_run(other, opt)


def test_loaded_values_are_not_a_callers_write(rng, kind):
    """The loaded lr differs from the mirror, yet the schedule leads: mirrors are reset at load."""
    lr = warmup()
    opt = kind.ours(make_parameters(rng), lr=lr)
    run(rng, 3, opt)
    theirs = kind.theirs(twin(parameters_of(opt)), lr=123.0)
    run(rng, 5, theirs)
    opt.set_step(5)  # which SGD's and Lion's do not say
    opt.load_state_dict(theirs.state_dict())
    assert opt.param_groups[0]["lr"] == lr(5)
    run(rng, 1, opt)
    assert opt.param_groups[0]["lr"] == lr(6)


def test_an_override_ends_at_load(rng, kind):
    """A value written over a schedule does not outlive load_state_dict."""
    lr = warmup()
    opt = kind.ours(make_parameters(rng), lr=lr)
    run(rng, 3, opt)
    opt.param_groups[0]["lr"] = 0.5
    with pytest.warns(UserWarning, match="lr"):
        run(rng, 1, opt)
    opt.load_state_dict(opt.state_dict())
    run(rng, 1, opt)
    assert opt.param_groups[0]["lr"] == lr(5)
