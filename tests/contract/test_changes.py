"""Groups, parameters and state that change in mid-run."""

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_run,
    assert_unchanged,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    snapshot,
    twin,
    warmup,
)

import lrfused


def pair(rng, backend, **options):
    """Ours and torch's over equal parameters."""
    params = make_parameters(rng)
    theirs = torch.optim.AdamW(twin(params), lr=0.02, **options)
    return lrfused.AdamW(params, lr=0.02, backend=backend, **options), theirs


def test_a_group_added_in_mid_run_starts_at_count_zero(rng, backend):
    """add_param_group in mid-run: the counts of the others go on, the new ones start at 0."""
    ours, theirs = pair(rng, backend)
    run(rng, 5, ours, theirs)
    more = make_parameters(rng)
    ours.add_param_group({"params": more, "lr": 0.1})
    theirs.add_param_group({"params": twin(more), "lr": 0.1})
    run(rng, 5, ours, theirs)
    assert [float(s["step"]) for s in ours.state.values()] == [10.0] * 4 + [5.0] * 4
    assert_near(ours, theirs)


def test_a_group_added_in_mid_run_shows_the_schedule_of_now(rng):
    """A scheduled group added at step n: its mirror is schedule(n), its step uses schedule(n)."""
    lr = warmup()
    opt = lrfused.AdamW(make_parameters(rng), lr=0.1)
    run(rng, 4, opt)
    opt.add_param_group({"params": make_parameters(rng), "lr": lr})
    assert opt.param_groups[1]["lr"] == lr(4)
    run(rng, 1, opt)
    assert torch.tensor(opt.metrics()["lr"][1]) == torch.tensor(lr(4))
    assert opt.metrics()["steps"] == 5


def test_a_refused_group_changes_nothing(rng):
    """add_param_group with a parameter twice, a non-leaf or a bad value: torch's or our error."""
    opt = lrfused.AdamW(make_parameters(rng), lr=warmup())
    run(rng, 2, opt)
    before = snapshot(opt)
    leaf = torch.nn.Parameter(torch.ones(3))
    refused = [
        ({"params": parameters_of(opt)[:1]}, ValueError),
        ({"params": [leaf * 2]}, ValueError),
        ({"params": ["weight"]}, TypeError),
        ({"params": {leaf}}, TypeError),
        ({"params": [leaf], "lr": -1.0}, ValueError),
        ({"params": [leaf], "betas": (0.9, 2.0)}, ValueError),
        ({"params": [leaf], "agc": "yes"}, TypeError),
        ({"params": [leaf], "agc_by": "row"}, ValueError),
        ({"lr": 0.1}, (KeyError, ValueError)),
        ([leaf], TypeError),
    ]
    for group, error in refused:
        with pytest.raises(error):
            opt.add_param_group(group)
        assert len(opt.param_groups) == 1
        assert_unchanged(opt, before)
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 3


def test_staged_unfreezing_counts_as_in_torch(rng, backend):
    """requires_grad turned on layer by layer, off again: counts as in torch."""
    ours, theirs = pair(rng, backend)
    for first in (3, 2, 0, 2):
        for opt in (ours, theirs):
            for i, p in enumerate(parameters_of(opt)):
                p.requires_grad_(i >= first)
        run(rng, 3, ours, theirs)
    assert [float(ours.state[p]["step"]) for p in parameters_of(ours)] == [3.0, 3.0, 9.0, 12.0]
    assert_near(ours, theirs)


def test_parameters_replaced_after_construction(rng, backend):
    """group["params"] = [...] after construction (accelerate with FSDP2): the new ones move."""
    params = make_parameters(rng)
    ours = lrfused.AdamW(make_parameters(rng), lr=warmup(), backend=backend)
    plain = lrfused.AdamW(twin(params), lr=warmup(), backend=backend)
    ours.param_groups[0]["params"] = params
    run(rng, 3, ours, plain)
    assert_same_run(ours, plain)


def test_parameters_replaced_in_mid_run(rng, backend):
    """Other parameters in mid-run start with state of their own; those that stay go on."""
    ours, theirs = pair(rng, backend)
    run(rng, 4, ours, theirs)
    new = make_parameters(rng, shapes=((9,),))
    for opt, param in ((ours, new[0]), (theirs, twin(new)[0])):
        opt.param_groups[0]["params"][1] = param
    run(rng, 4, ours, theirs)
    for opt in (ours, theirs):
        opt.param_groups[0]["params"].reverse()
        opt.param_groups[0]["params"].pop()
    run(rng, 4, ours, theirs)
    assert_near(ours, theirs)


def test_data_of_a_parameter_may_be_rebound(rng, backend):
    """p.data = ... : the step moves the new memory, of another layout too, and not the old."""
    ours, theirs = pair(rng, backend)
    run(rng, 3, ours, theirs)
    old = parameters_of(ours)[0].data
    kept = old.clone()
    for opt in (ours, theirs):
        for p in parameters_of(opt):
            p.data = (p.data * 0.5).t().contiguous().t() if p.dim() == 2 else p.data * 0.5
    run(rng, 3, ours, theirs)
    assert torch.equal(old, kept)
    assert_near(ours, theirs)


def test_a_parameter_may_change_its_dtype(rng, backend):
    """model.double() and back: as in torch, the moments stay in their dtype or are refused."""
    opt = lrfused.AdamW(make_parameters(rng), backend=backend)
    run(rng, 2, opt)
    for p in parameters_of(opt):
        p.grad = None
        p.data = p.data.double()
    run(rng, 2, opt)
    assert {p.dtype for p in parameters_of(opt)} == {torch.float64}
    assert {float(s["step"]) for s in opt.state.values()} == {4.0}


def test_moments_may_be_replaced(rng, backend):
    """state["exp_avg"] = another tensor: the step uses it, and the caller's object stays."""
    ours, theirs = pair(rng, backend)
    run(rng, 3, ours, theirs)
    for opt in (ours, theirs):
        for p in parameters_of(opt):
            opt.state[p]["exp_avg"] = opt.state[p]["exp_avg"] * 0.5
            opt.state[p]["exp_avg_sq"].mul_(0.25)
    given = [ours.state[p]["exp_avg"] for p in parameters_of(ours)]
    run(rng, 3, ours, theirs)
    assert all(
        ours.state[p]["exp_avg"] is g for p, g in zip(parameters_of(ours), given, strict=True)
    )
    assert_near(ours, theirs)


@pytest.mark.parametrize("how", ["replaced", "filled", "number"])
def test_the_step_count_may_be_written(rng, backend, how):
    """state["step"] replaced by a tensor or a number, or filled in place: bias correction counts
    from there."""
    ours, theirs = pair(rng, backend)
    run(rng, 5, ours, theirs)
    for p, q in zip(parameters_of(ours), parameters_of(theirs), strict=True):
        theirs.state[q]["step"] = torch.tensor(2.0)
        if how == "filled":
            ours.state[p]["step"].fill_(2.0)
        else:
            ours.state[p]["step"] = torch.tensor(2.0) if how == "replaced" else 2
    run(rng, 3, ours, theirs)
    assert {float(s["step"]) for s in ours.state.values()} == {5.0}
    assert_near(ours, theirs)


def test_clearing_the_state_starts_the_moments_anew(rng, backend):
    """state.clear(), or the state of one parameter deleted: its moments and count start at 0."""
    ours, theirs = pair(rng, backend)
    run(rng, 4, ours, theirs)
    for opt in (ours, theirs):
        opt.state.clear()
    run(rng, 2, ours, theirs)
    assert_near(ours, theirs)
    for opt in (ours, theirs):
        del opt.state[parameters_of(opt)[1]]
        opt.state[parameters_of(opt)[2]] = {}
    run(rng, 2, ours, theirs)
    assert [float(ours.state[p]["step"]) for p in parameters_of(ours)] == [4.0, 2.0, 2.0, 4.0]
    assert_near(ours, theirs)


def test_amsgrad_and_maximize_may_be_switched(rng, backend):
    """group["maximize"] and, before its first step, group["amsgrad"] may be written."""
    ours, theirs = pair(rng, backend)
    for opt in (ours, theirs):
        opt.param_groups[0]["amsgrad"] = True
    run(rng, 3, ours, theirs)
    for opt in (ours, theirs):
        opt.param_groups[0]["maximize"] = True
    run(rng, 3, ours, theirs)
    for opt in (ours, theirs):
        opt.param_groups[0]["amsgrad"] = False
    run(rng, 3, ours, theirs)
    assert_near(ours, theirs)


def test_groups_may_be_empty_or_frozen(rng, backend):
    """Groups without parameters, or whose parameters have no gradients, are passed over."""
    params = make_parameters(rng)
    plain = lrfused.AdamW(twin(params), backend=backend)
    frozen = twin([torch.zeros(3), torch.ones(2)])
    for p in frozen:
        p.requires_grad_(False)
    opt = lrfused.AdamW(
        [{"params": []}, {"params": frozen}, {"params": params}, {"params": []}], backend=backend
    )
    for _ in range(3):
        give_gradients(rng, plain)
        for p, q in zip(params, parameters_of(plain), strict=True):
            p.grad = q.grad.clone()
        opt.step()
        plain.step()
    assert [len(g["params"]) for g in opt.param_groups] == [0, 2, 4, 0]
    assert all(torch.equal(p, q) for p, q in zip(params, parameters_of(plain), strict=True))


def test_groups_without_parameters_step_save_and_load(rng):
    """An empty list is torch's error; a group without parameters steps, saves and loads."""
    with pytest.raises(ValueError, match="empty parameter list"):
        lrfused.AdamW([])
    opt = lrfused.AdamW([{"params": []}], lr=warmup())
    opt.step()
    opt.load_state_dict(opt.state_dict())
    assert opt.metrics()["steps"] == 0 and opt.param_groups[0]["lr"] == warmup()(0)


def test_state_is_made_with_the_first_gradient(rng, backend):
    """State is built lazily: none after construction, saving or a step without gradients; then
    for the parameters alone that have a gradient, as in torch."""
    ours, theirs = pair(rng, backend)
    ours.step()
    ours.state_dict()
    ours.metrics()
    assert not ours.state
    for opt in (ours, theirs):
        parameters_of(opt)[2].grad = torch.ones(())
        opt.step()
    assert list(ours.state) == [parameters_of(ours)[2]]
    assert set(ours.state[parameters_of(ours)[2]]) == set(theirs.state[parameters_of(theirs)[2]])
