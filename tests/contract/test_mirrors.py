"""Schedules, their mirrors in ``param_groups``, and what the caller writes over them."""

import warnings
from pathlib import Path

import pytest
import torch
from lib import contract
from lib.contract import (
    assert_near,
    assert_same_bits,
    assert_same_run,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    twin,
    warmup,
)
from lib.optimizers import with_betas

from lrfused import schedules


def lrs_used(rng, opt, count, before=lambda i: None):
    """The lr that each of the next steps used."""
    found = []
    for i in range(count):
        before(i)
        run(rng, 1, opt)
        found.append(opt.metrics()["lr"][0])
    return found


def test_the_mirror_is_the_schedule_at_the_counter(rng, kind, backend):
    """After n steps the host number is schedule(n), and the step used schedule(n - 1)."""
    lr = warmup()
    opt = kind.ours(make_parameters(rng), lr=lr, backend=backend)
    assert opt.param_groups[0]["lr"] == lr(0)
    for n in range(1, 12):
        run(rng, 1, opt)
        opt.sync_mirrors()
        assert opt.param_groups[0]["lr"] == lr(n)
        assert torch.tensor(opt.metrics()["lr"][0]) == torch.tensor(lr(n - 1))


@pytest.mark.parametrize("how", ["sync_mirrors", "metrics", "state_dict"])
def test_mirrors_are_exact_when_asked(rng, kind, how):
    """The mirror is exact after metrics(), state_dict() and sync_mirrors()."""
    lr = warmup()
    opt = kind.ours(make_parameters(rng), lr=lr)
    run(rng, 3, opt)
    answer = getattr(opt, how)()
    assert opt.param_groups[0]["lr"] == lr(3)
    if how == "state_dict":
        assert answer["param_groups"][0]["lr"] == lr(3)


def at(value, step):
    """Of one schedule or a pair of them."""
    return tuple(at(one, step) for one in value) if isinstance(value, tuple) else value(step)


def test_a_scheduled_run_equals_a_run_with_written_values(rng, kind, backend):
    """A schedule gives the bits that writing schedule(step) by hand before each step gives."""
    scheduled = {"lr": warmup(), **kind.scheduled}
    params = make_parameters(rng)
    other = kind.ours(twin(params), backend=backend)
    opt = kind.ours(params, **scheduled, backend=backend)
    for step in range(15):
        other.param_groups[0].update({key: at(value, step) for key, value in scheduled.items()})
        run(rng, 1, opt, other)
    close = {"rtol": 1e-6, "atol": 1e-7}  # schedule(step) is rounded to float32, plan's is not
    for a, b in zip(parameters_of(opt), parameters_of(other), strict=True):
        torch.testing.assert_close(a, b, **close)


def test_a_written_value_wins_with_one_warning(rng, kind, backend):
    """g["lr"] *= 0.1 by hand: that value is used from the next step on; one warning."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), backend=backend)
    run(rng, 3, opt)
    opt.param_groups[0]["lr"] *= 0.1
    written = opt.param_groups[0]["lr"]
    with pytest.warns(UserWarning, match=r"param_groups\[0\].*lr") as seen:
        assert lrs_used(rng, opt, 5) == [written] * 5
    assert len(seen) == 1
    # The line that called step(), not one of the library or of torch's wrappers.
    assert Path(seen[0].filename) == Path(contract.__file__)
    assert opt.param_groups[0]["lr"] == written


def test_a_written_value_is_not_refreshed(rng, kind, backend):
    """While the caller's value differs from the mirror, nothing writes over it."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), backend=backend)
    opt.param_groups[0]["lr"] = 0.25
    with pytest.warns(UserWarning, match="lr"):
        run(rng, 4, opt)
    opt.sync_mirrors()
    opt.metrics()
    opt.state_dict()
    assert opt.param_groups[0]["lr"] == 0.25


def test_writing_the_mirrored_value_back_returns_the_lead(rng, kind, backend):
    """After an override the mirrored value, written back, gives the schedule the lead again."""
    lr = warmup()
    opt = kind.ours(make_parameters(rng), lr=lr, backend=backend)
    run(rng, 3, opt)
    mirrored = opt.param_groups[0]["lr"]
    opt.param_groups[0]["lr"] = 0.5
    with pytest.warns(UserWarning, match="lr"):
        run(rng, 2, opt)
    opt.param_groups[0]["lr"] = mirrored
    run(rng, 1, opt)
    assert torch.tensor(opt.metrics()["lr"][0]) == torch.tensor(lr(5))
    assert opt.param_groups[0]["lr"] == lr(6)


def test_every_scheduled_value_can_be_overridden(rng, kind):
    """weight_decay, eps and each of the betas are overridden as lr is, each with its warning."""
    params = make_parameters(rng)
    other = kind.ours(twin(params), lr=0.01, **kind.numbers)
    opt = kind.ours(params, lr=0.01, **kind.scheduled)
    opt.param_groups[0].update(kind.numbers)
    with pytest.warns(UserWarning) as seen:
        run(rng, 5, opt, other)
    named = sorted(str(w.message).split(": ")[1].split()[0] for w in seen)
    keys = {*kind.scheduled} - {"betas"}
    assert named == sorted(keys | ({"beta1", "beta2"} if "betas" in kind.scheduled else set()))
    assert_same_run(opt, other)


def test_values_without_a_schedule_are_written_without_a_warning(rng, kind):
    """Plain numbers in the groups may be written at any time; the next step uses them."""
    params = make_parameters(rng)
    theirs = kind.theirs(twin(params))
    ours = kind.ours(params)
    pairs = {"betas": [0.5, 0.6]} if "betas" in kind.scheduled else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (0.1, 0.0, 0.02, 1):
            for opt in (ours, theirs):
                opt.param_groups[0].update(lr=value, weight_decay=value / 2, **pairs)
            run(rng, 2, ours, theirs)
            assert ours.metrics()["lr"] == [value]
    for a, b in zip(parameters_of(ours), parameters_of(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_tensor_lr_is_read_at_every_step(rng, kind, backend):
    """fill_ on a Tensor lr is seen by the next step; so is rebinding it to another Tensor."""
    lr = torch.tensor(0.5)
    opt = kind.ours(make_parameters(rng), lr=lr, backend=backend)
    assert lrs_used(rng, opt, 2) == [0.5, 0.5]
    lr.fill_(0.25)
    assert lrs_used(rng, opt, 2) == [0.25, 0.25]
    opt.param_groups[0]["lr"] = torch.tensor(0.125)
    lr.fill_(7.0)
    assert lrs_used(rng, opt, 2) == [0.125, 0.125]
    opt.param_groups[0]["lr"] = 2.0
    assert lrs_used(rng, opt, 2) == [2.0, 2.0]
    opt.param_groups[0]["lr"] = lr
    assert lrs_used(rng, opt, 1) == [7.0]
    lr.data = torch.tensor(3.0)
    assert lrs_used(rng, opt, 1) == [3.0]


def test_a_tensor_written_over_a_schedule_wins(rng, kind, backend):
    """A Tensor put in the place of a scheduled lr leads, with a warning, until the mirrored value
    is written back."""
    lr = warmup()
    opt = kind.ours(make_parameters(rng), lr=lr, backend=backend)
    run(rng, 2, opt)
    mirrored = opt.param_groups[0]["lr"]
    opt.param_groups[0]["lr"] = torch.tensor(0.5)
    with pytest.warns(UserWarning, match="lr") as seen:
        assert lrs_used(rng, opt, 3) == [0.5] * 3
    assert len(seen) == 1
    opt.param_groups[0]["lr"] = mirrored
    run(rng, 2, opt)
    assert opt.param_groups[0]["lr"] == lr(7)


def test_two_groups_may_share_one_schedule_and_be_overridden_apart(rng, kind, backend):
    """An override belongs to its group."""
    lr = warmup()
    opt = kind.ours(
        [{"params": make_parameters(rng)}, {"params": make_parameters(rng)}],
        lr=lr,
        backend=backend,
    )
    opt.param_groups[1]["lr"] = 0.5
    with pytest.warns(UserWarning, match=r"param_groups\[1\]"):
        run(rng, 4, opt)
    assert opt.metrics()["lr"][1] == 0.5
    assert [g["lr"] for g in opt.param_groups] == [lr(4), 0.5]


def test_a_step_without_gradients_counts_nothing(rng, kind):
    """No parameter had a gradient: no counter moves, the schedule stays."""
    lr = warmup()
    opt = kind.ours(make_parameters(rng), lr=lr)
    run(rng, 2, opt)
    before = [p.detach().clone() for p in parameters_of(opt)]
    opt.zero_grad()
    opt.step()
    assert opt.param_groups[0]["lr"] == lr(2) and opt.metrics()["steps"] == 2
    assert_same_bits(parameters_of(opt), before)


def test_a_group_without_gradients_sees_the_counter_too(rng, kind):
    """The counter belongs to the optimizer: it moves on in groups that had no gradients."""
    a, b = make_parameters(rng), make_parameters(rng)
    lr = warmup()
    opt = kind.ours([{"params": a}, {"params": b, "lr": lr}], lr=0.1)
    for _ in range(3):
        give_gradients(rng, opt)
        for p in b:
            p.grad = None
        opt.step()
    assert opt.param_groups[1]["lr"] == lr(3)
    assert all(p not in opt.state for p in b)


def test_a_bad_value_written_to_a_group_is_refused(rng, kind):
    """nan, infinite or out-of-range values, or no numbers: an error names group and value, and
    nothing changes."""
    opt = kind.ours(make_parameters(rng), lr=0.1)
    run(rng, 2, opt)
    before = [p.detach().clone() for p in parameters_of(opt)]
    bad = [(key, bad) for key in kind.hyperparameters for bad in (float("nan"), "fast", None)]
    bad += [("lr", float("inf")), ("betas", (1.0, 0.9)), ("betas", (0.5,)), ("betas", 0.9)]
    for key, value in ((key, value) for key, value in bad if key in kind.hyperparameters):
        good = opt.param_groups[0][key]
        opt.param_groups[0][key] = value
        with pytest.raises((RuntimeError, ValueError, TypeError), match=r"param_groups\[0\]"):
            run(rng, 1, opt)
        opt.param_groups[0][key] = good
        assert_same_bits(parameters_of(opt), before)
        assert opt.metrics()["steps"] == 2
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 3


@with_betas
def test_betas_in_a_list_may_be_changed_in_place(rng, kind, backend):
    """g["betas"] = [0.9, 0.99]; g["betas"][0] = 0.5 later: the next step uses it, as in torch."""
    params = make_parameters(rng)
    ours = kind.ours(params, lr=0.01, backend=backend)
    theirs = kind.theirs(twin(params), lr=0.01)
    for opt in (ours, theirs):
        opt.param_groups[0]["betas"] = [0.9, 0.99]
    run(rng, 3, ours, theirs)
    for opt in (ours, theirs):
        opt.param_groups[0]["betas"][0] = 0.5
    run(rng, 3, ours, theirs)
    assert_near(ours, theirs)


def test_overriding_and_resuming_build_nothing_anew(rng, kind, backend):
    """An override, its end, another peak and a checkpoint are data: the step's table stays."""
    peak = torch.tensor(0.1)
    lr = warmup() * schedules.input(peak, "peak")
    opt = kind.ours(make_parameters(rng), lr=lr, max_grad_norm=1.0, backend=backend)
    run(rng, 2, opt)
    table = opt._engine.table
    assert table is not None
    runner = table.run
    mirrored = opt.param_groups[0]["lr"]
    opt.param_groups[0]["lr"] = 0.5
    with pytest.warns(UserWarning, match="lr"):
        run(rng, 2, opt)
    opt.param_groups[0]["lr"] = mirrored
    run(rng, 1, opt)
    peak.fill_(0.7)
    run(rng, 1, opt)
    opt.load_state_dict(opt.state_dict())
    run(rng, 1, opt)
    assert opt._engine.table is table and table.run is runner
