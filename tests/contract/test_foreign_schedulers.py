"""A scheduler of torch's over an optimizer whose own schedule leads.

It takes the schedule's first value for the base of all that it writes. Where that is 0, nothing
would ever be learned.
"""

import warnings

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_run,
    assert_unchanged,
    give_gradients,
    make_parameters,
    run,
    snapshot,
    twin,
    warmup,
)
from torch.optim import lr_scheduler as L

import lrfused
from lrfused import schedules

SCHEDULERS = {
    "LambdaLR": lambda opt: L.LambdaLR(opt, lambda step: 1.0),
    "StepLR": lambda opt: L.StepLR(opt, 3, 0.5),
    "CosineAnnealingLR": lambda opt: L.CosineAnnealingLR(opt, 10),
    "ExponentialLR": lambda opt: L.ExponentialLR(opt, 0.9),
    "LinearLR": lambda opt: L.LinearLR(opt, 0.5, 1.0, 20),
    "SequentialLR": lambda opt: L.SequentialLR(
        opt, [L.LinearLR(opt), L.CosineAnnealingLR(opt, 9)], [4]
    ),
}
OF_TORCH_2_8 = "The epoch parameter in `scheduler.step"  # by its SequentialLR, of itself
each = pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)


@each
def test_over_a_schedule_that_starts_at_0_the_first_step_raises(rng, kind, backend, scheduler):
    """As the Trainer of transformers builds one where it is given none: the error names the group
    and ReportLR, before anything has changed."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), loss_scale="dynamic", backend=backend)
    before = snapshot(opt)
    outside = scheduler(opt)
    give_gradients(rng, opt)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"param_groups\[0\]: an LR scheduler.*ReportLR\(op"):
            opt.step()
        assert not opt.state and outside.get_last_lr() == [0.0]
    del opt.param_groups[0]["initial_lr"]
    assert_unchanged(opt, before)


def train(rng, opt, scheduler, steps=6):
    """A loop that somebody else wrote."""
    for _ in range(steps):
        give_gradients(rng, opt)
        opt.step()
        scheduler.step()


@each
def test_both_ways_out_go_on(rng, kind, backend, scheduler):
    """What the error says: a ReportLR in place of the scheduler, and the schedule leads; or the
    peak for lr, and the scheduler does."""
    params = make_parameters(rng)
    opt = kind.ours(params, lr=warmup(), backend=backend)
    scheduler(opt)
    give_gradients(rng, opt)
    with pytest.raises(RuntimeError, match=r"or keep the scheduler .* the peak, a number, for lr"):
        opt.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", OF_TORCH_2_8, UserWarning)
        train(rng, opt, lrfused.ReportLR(opt))
        first = kind.ours(twin(params), lr=warmup(), backend=backend)
        train(rng, first, lrfused.ReportLR(first))
        second = kind.ours(twin(params), lr=0.1, backend=backend)
        outside = scheduler(second)
        train(rng, second, outside)
    assert first.param_groups[0]["lr"] == opt.param_groups[0]["lr"] == warmup()(6)
    assert second.param_groups[0]["lr"] == outside.get_last_lr()[0] > 0.0


def test_one_group_of_two_is_enough(rng, kind, backend):
    """A number in one group and a warmup from 0 in the other: that group would stand still."""
    first, second = make_parameters(rng), make_parameters(rng)
    groups = [{"params": first}, {"params": second, "lr": warmup()}]
    opt = kind.ours(groups, lr=0.1, backend=backend)
    L.LambdaLR(opt, lambda step: 1.0)
    give_gradients(rng, opt)
    with pytest.raises(RuntimeError, match=r"param_groups\[1\]: an LR scheduler was built over"):
        opt.step()
    assert not opt.state


def test_in_mid_run_too(rng, kind):
    """A checkpoint is loaded, or a schedule written, and then the scheduler is built: the next step
    that looks closely raises."""
    first = kind.ours(make_parameters(rng), lr=warmup())
    run(rng, 3, first)
    opt = kind.ours(make_parameters(rng), lr=warmup())
    L.LambdaLR(opt, lambda step: 1.0)
    opt.load_state_dict(first.state_dict())
    give_gradients(rng, opt)
    with pytest.raises(RuntimeError, match="ReportLR"):
        opt.step()
    assert opt.metrics()["steps"] == 3


@each
@pytest.mark.filterwarnings(f"ignore:{OF_TORCH_2_8}:UserWarning")
def test_over_a_schedule_that_starts_above_0_it_leads_with_a_warning(rng, kind, backend, scheduler):
    """The mirrors' rule: what the scheduler writes is used from the next step on, with one warning
    for the run, which says who wrote it and names ReportLR."""
    lr = schedules.linear(0.125, 0.5, 20)
    opt = kind.ours(make_parameters(rng), lr=lr, backend=backend)
    outside, used, written = scheduler(opt), [], [opt.param_groups[0]["lr"]]
    message = r"param_groups\[0\]: lr was set to .*an LR scheduler was built over.*lrfused.ReportLR"
    with pytest.warns(UserWarning, match=message) as seen:
        for _ in range(8):
            train(rng, opt, outside, steps=1)
            used += opt.metrics()["lr"]
            written.append(opt.param_groups[0]["lr"])
    assert sum(OF_TORCH_2_8 not in str(warning.message) for warning in seen) == 1
    assert used == written[:-1] and written[-1] == outside.get_last_lr()[0] != lr(8)


def test_constant_schedules_at_0_and_frozen_groups_are_no_mistake(rng, kind):
    """Without a scheduler a group may stand at 0 for as long as it likes; over a number 0 a
    scheduler may be built, as in torch, and a schedule that starts elsewhere written later."""
    params = make_parameters(rng)
    opt = kind.ours([{"params": params, "lr": schedules.constant(0.0)}])
    run(rng, 2, opt)
    ours, theirs = kind.ours(twin(params), lr=0.0), kind.theirs(twin(params), lr=0.0)
    outside = [L.LambdaLR(o, lambda step: 1.0) for o in (ours, theirs)]
    run(rng, 2, ours, theirs, after=lambda _: [one.step() for one in outside])
    assert_near(ours, theirs)
    ours.param_groups[0]["lr"] = schedules.linear(0.5, 0.1, 9)
    run(rng, 1, ours)
    assert ours.metrics()["lr"] == [schedules.linear(0.5, 0.1, 9)(2)]


# timm's lr_scale


def test_a_layers_factor_multiplies_a_schedule(rng, kind, backend):
    """timm's lr_scale beside a schedule: applied at construction, in add_param_group, in a group
    put in by hand and to a Schedule written later, to lr alone; shown, saved and resumed."""
    lr = schedules.linear(0.5, 0.1, 20)
    params = [make_parameters(rng) for _ in range(3)]

    def make(params, lrs, scales):
        own = [{} if rate is None else {"lr": rate} for rate in lrs]
        groups = [
            {"params": twin(p), "weight_decay": lr, **rate, **scale}
            for p, rate, scale in zip(params, own, scales, strict=True)
        ]
        opt = kind.ours(groups[:2], lr=lr, backend=backend)
        opt.add_param_group(groups[2])
        return opt

    factors = [0.5, 0.25, 0.125]
    opt = make(params, [None, None, lr], [{"lr_scale": factor} for factor in factors])
    wanted = make(params, [lr * factor for factor in factors], [{}] * 3)
    run(rng, 3, opt, wanted)
    assert_same_run(opt, wanted)
    assert [g["lr"] for g in opt.param_groups] == [lr(3) * factor for factor in factors]
    later = schedules.linear(0.3, 0.2, 9)
    opt.param_groups[1].update(lr=later, weight_decay=later)
    wanted.param_groups[1].update(lr=later * 0.25, weight_decay=later)
    resumed = make(params, [None, later, lr], [{"lr_scale": factor} for factor in factors])
    resumed.param_groups[1]["weight_decay"] = later
    run(rng, 2, opt, wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed.load_state_dict(opt.state_dict())
    for other in (wanted, resumed):
        assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in opt.param_groups]
    opt.load_state_dict(opt.state_dict(), load_schedules=True)
    run(rng, 2, opt, wanted)
    assert_same_run(opt, wanted)


def test_a_layers_factor_beside_a_number_changes_nothing(rng, kind):
    """timm's schedulers multiply what they write themselves; so does torch's optimizer nothing."""
    for lr in (0.5, torch.tensor(0.5)):
        opt = kind.ours([{"params": make_parameters(rng), "lr_scale": 0.5}], lr=lr)
        run(rng, 1, opt)
        assert opt.metrics()["lr"] == [0.5] and opt.param_groups[0]["lr_scale"] == 0.5
    opt.param_groups[0]["lr_scale"] = "not looked at"
    run(rng, 1, opt)


@pytest.mark.parametrize("value", [-0.5, float("nan"), "half", None, True])
def test_a_bad_factor_is_refused(rng, kind, value):
    """The argument, the value and the rule; at construction, in add_param_group, and when a
    Schedule is written, where the step has not begun."""
    error = pytest.raises((TypeError, ValueError), match="lr_scale: must ")
    with error:
        kind.ours([{"params": make_parameters(rng), "lr_scale": value}], lr=warmup())
    opt = kind.ours([{"params": make_parameters(rng), "lr_scale": value}])
    run(rng, 1, opt)
    with error:
        opt.add_param_group({"params": make_parameters(rng), "lr_scale": value, "lr": warmup()})
    before = snapshot(opt)
    opt.param_groups[0]["lr"] = warmup()
    give_gradients(rng, opt)
    for ask in (opt.step, opt.metrics, opt.state_dict):
        with error:
            ask()
    opt.param_groups[0]["lr"] = opt.defaults["lr"]
    assert_unchanged(opt, before)
