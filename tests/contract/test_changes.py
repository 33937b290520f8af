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
    shown_state,
    snapshot,
    twin,
    warmup,
)
from lib.optimizers import that_counts, with_state


def pair(rng, kind, backend, **options):
    """Ours and torch's over equal parameters."""
    params = make_parameters(rng)
    theirs = kind.theirs(twin(params), lr=0.02, **options)
    return kind.ours(params, lr=0.02, backend=backend, **options), theirs


def test_a_group_added_in_mid_run_starts_at_count_zero(rng, kind, backend):
    """add_param_group in mid-run: the counts of the others go on, the new ones start at 0."""
    ours, theirs = pair(rng, kind, backend)
    run(rng, 5, ours, theirs)
    more = make_parameters(rng)
    ours.add_param_group({"params": more, "lr": 0.1})
    theirs.add_param_group({"params": twin(more), "lr": 0.1})
    run(rng, 5, ours, theirs)
    kind.assert_counts(ours, [10.0] * 4 + [5.0] * 4)
    assert_near(ours, theirs)


def test_a_group_added_in_mid_run_shows_the_schedule_of_now(rng, kind):
    """A scheduled group added at step n: its mirror is schedule(n), its step uses schedule(n)."""
    lr = warmup()
    opt = kind.ours(make_parameters(rng), lr=0.1)
    run(rng, 4, opt)
    opt.add_param_group({"params": make_parameters(rng), "lr": lr})
    assert opt.param_groups[1]["lr"] == lr(4)
    run(rng, 1, opt)
    assert torch.tensor(opt.metrics()["lr"][1]) == torch.tensor(lr(4))
    assert opt.metrics()["steps"] == 5


def test_a_refused_group_changes_nothing(rng, kind):
    """add_param_group with a parameter twice, a non-leaf or a bad value: torch's or our error."""
    opt = kind.ours(make_parameters(rng), lr=warmup())
    run(rng, 2, opt)
    before = snapshot(opt)
    leaf = torch.nn.Parameter(torch.ones(3))
    refused = [
        ({"params": parameters_of(opt)[:1]}, ValueError),
        ({"params": [leaf * 2]}, ValueError),
        ({"params": ["weight"]}, TypeError),
        ({"params": {leaf}}, TypeError),
        ({"params": [leaf], "lr": -1.0}, ValueError),
        ({"params": [leaf], "weight_decay": -1.0}, ValueError),
        ({"params": [leaf], "agc": "yes"}, TypeError),
        ({"params": [leaf], "agc_by": "row"}, ValueError),
        ({"lr": 0.1}, (KeyError, ValueError)),
        ([leaf], TypeError),
    ]
    if "betas" in kind.hyperparameters:
        refused.append(({"params": [leaf], "betas": (0.9, 2.0)}, ValueError))
    for group, error in refused:
        with pytest.raises(error):
            opt.add_param_group(group)
        assert len(opt.param_groups) == 1
        assert_unchanged(opt, before)
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 3


def test_staged_unfreezing_counts_as_in_torch(rng, kind, backend):
    """requires_grad turned on layer by layer, off again: counts as in torch."""
    ours, theirs = pair(rng, kind, backend)
    for first in (3, 2, 0, 2):
        for opt in (ours, theirs):
            for i, p in enumerate(parameters_of(opt)):
                p.requires_grad_(i >= first)
        run(rng, 3, ours, theirs)
    shown = {p: state for p, state in ours.state.items() if state}
    assert list(map(shown.__contains__, parameters_of(ours))) == [kind.has_state] * 4
    if kind.counts:
        counts = [float(ours.state[p]["step"]) for p in parameters_of(ours)]
        assert counts == [3.0, 3.0, 9.0, 12.0]
    assert_near(ours, theirs)


def test_parameters_replaced_after_construction(rng, kind, backend):
    """group["params"] = [...] after construction (accelerate with FSDP2): the new ones move."""
    params = make_parameters(rng)
    ours = kind.ours(make_parameters(rng), lr=warmup(), backend=backend)
    plain = kind.ours(twin(params), lr=warmup(), backend=backend)
    ours.param_groups[0]["params"] = params
    run(rng, 3, ours, plain)
    assert_same_run(ours, plain)


def test_parameters_replaced_in_mid_run(rng, kind, backend):
    """Other parameters in mid-run start with state of their own; those that stay go on."""
    ours, theirs = pair(rng, kind, backend)
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


def test_data_of_a_parameter_may_be_rebound(rng, kind, backend):
    """p.data = ... : the step moves the new memory, of another layout too, and not the old."""
    ours, theirs = pair(rng, kind, backend)
    run(rng, 3, ours, theirs)
    old = parameters_of(ours)[0].data
    kept = old.clone()
    for opt in (ours, theirs):
        for p in parameters_of(opt):
            p.data = (p.data * 0.5).t().contiguous().t() if p.dim() == 2 else p.data * 0.5
    run(rng, 3, ours, theirs)
    assert torch.equal(old, kept)
    assert_near(ours, theirs)


def test_a_parameter_may_change_its_dtype(rng, kind, backend):
    """model.double() and back: as in torch, the moments stay in their dtype or are refused."""
    opt = kind.ours(make_parameters(rng), backend=backend)
    run(rng, 2, opt)
    for p in parameters_of(opt):
        p.grad = None
        p.data = p.data.double()
    run(rng, 2, opt)
    assert {p.dtype for p in parameters_of(opt)} == {torch.float64}
    kind.assert_counts(opt, [4.0] * 4)
    assert opt.metrics()["steps"] == 4


@with_state
def test_moments_may_be_replaced(rng, kind, backend):
    """state["exp_avg"] = another tensor: the step uses it, and the caller's object stays."""
    ours, theirs = pair(rng, kind, backend)
    run(rng, 3, ours, theirs)
    first, *others = kind.moments
    for opt in (ours, theirs):
        for p in parameters_of(opt):
            opt.state[p][first] = opt.state[p][first] * 0.5
            for key in others:
                opt.state[p][key].mul_(0.25)
    given = [ours.state[p][first] for p in parameters_of(ours)]
    run(rng, 3, ours, theirs)
    assert all(ours.state[p][first] is g for p, g in zip(parameters_of(ours), given, strict=True))
    assert_near(ours, theirs)


@that_counts
@pytest.mark.parametrize("how", ["replaced", "filled", "number"])
def test_the_step_count_may_be_written(rng, kind, backend, how):
    """state["step"] replaced by a tensor or a number, or filled in place: bias correction counts
    from there."""
    ours, theirs = pair(rng, kind, backend)
    run(rng, 5, ours, theirs)
    for p, q in zip(parameters_of(ours), parameters_of(theirs), strict=True):
        theirs.state[q]["step"] = torch.tensor(2.0)
        if how == "filled":
            ours.state[p]["step"].fill_(2.0)
        else:
            ours.state[p]["step"] = torch.tensor(2.0) if how == "replaced" else 2
    run(rng, 3, ours, theirs)
    kind.assert_counts(ours, [5.0] * 4)
    assert_near(ours, theirs)


def test_clearing_the_state_starts_the_moments_anew(rng, kind, backend):
    """state.clear(), or the state of one parameter deleted: its moments and count start at 0."""
    ours, theirs = pair(rng, kind, backend)
    run(rng, 4, ours, theirs)
    for opt in (ours, theirs):
        opt.state.clear()
    run(rng, 2, ours, theirs)
    assert_near(ours, theirs)
    for opt in (ours, theirs):
        opt.state.pop(parameters_of(opt)[1], None)
        opt.state[parameters_of(opt)[2]] = {}
    run(rng, 2, ours, theirs)
    if kind.counts:
        counts = [float(ours.state[p]["step"]) for p in parameters_of(ours)]
        assert counts == [4.0, 2.0, 2.0, 4.0]
    assert_near(ours, theirs)


def test_amsgrad_and_maximize_may_be_switched(rng, kind, backend):
    """group["maximize"] and, before its first step, group["amsgrad"] may be written."""
    ours, theirs = pair(rng, kind, backend)
    switched = [("maximize", True), ("maximize", False)]
    if "amsgrad" in ours.param_groups[0]:
        switched = [("amsgrad", True), ("maximize", True), ("amsgrad", False)]
    for key, value in switched:
        for opt in (ours, theirs):
            opt.param_groups[0][key] = value
        run(rng, 3, ours, theirs)
    assert_near(ours, theirs)


def test_groups_may_be_empty_or_frozen(rng, kind, backend):
    """Groups without parameters, or whose parameters have no gradients, are passed over."""
    params = make_parameters(rng)
    plain = kind.ours(twin(params), backend=backend)
    frozen = twin([torch.zeros(3), torch.ones(2)])
    for p in frozen:
        p.requires_grad_(False)
    opt = kind.ours(
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


def test_groups_without_parameters_step_save_and_load(rng, kind):
    """An empty list is torch's error; a group without parameters steps, saves and loads."""
    with pytest.raises(ValueError, match="empty parameter list"):
        kind.ours([])
    opt = kind.ours([{"params": []}], lr=warmup())
    opt.step()
    opt.load_state_dict(opt.state_dict())
    assert opt.metrics()["steps"] == 0 and opt.param_groups[0]["lr"] == warmup()(0)


def test_state_is_made_with_the_first_gradient(rng, kind, backend):
    """State is built lazily: none after construction, saving or a step without gradients; then
    for the parameters alone that have a gradient, as in torch."""
    ours, theirs = pair(rng, kind, backend)
    ours.step()
    ours.state_dict()
    ours.metrics()
    assert not ours.state
    for opt in (ours, theirs):
        parameters_of(opt)[2].grad = torch.ones(())
        opt.step()
    assert list(ours.state) == ([parameters_of(ours)[2]] if kind.has_state else [])
    mine, other = (shown_state(opt, parameters_of(opt)[2]) for opt in (ours, theirs))
    assert set(mine) == set(other)
