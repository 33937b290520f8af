"""torch's LR schedulers around lrfused's optimizers, as around torch's."""

import pytest
import torch
from lib.contract import (
    assert_near,
    give_gradients,
    make_parameters,
    run,
    twin,
)
from torch.optim import lr_scheduler as L

from lrfused import schedules

SCHEDULERS = {
    "StepLR": lambda o: L.StepLR(o, 4, 0.5),
    "MultiStepLR": lambda o: L.MultiStepLR(o, [3, 7, 20], 0.3),
    "CosineAnnealingLR": lambda o: L.CosineAnnealingLR(o, 12, 1e-4),
    "CosineAnnealingWarmRestarts": lambda o: L.CosineAnnealingWarmRestarts(o, 5, 2),
    "LinearLR": lambda o: L.LinearLR(o, 0.1, 1.0, 10),
    "ExponentialLR": lambda o: L.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: L.PolynomialLR(o, 20, 2.0),
    "LambdaLR": lambda o: L.LambdaLR(o, lambda step: 1 / (step + 1)),
    "MultiplicativeLR": lambda o: L.MultiplicativeLR(o, lambda step: 0.97),
    "OneCycleLR": lambda o: L.OneCycleLR(o, 0.05, 30),
    "CyclicLR": lambda o: L.CyclicLR(o, 0.001, 0.02, 5, cycle_momentum=True),
    "SequentialLR": lambda o: L.SequentialLR(
        o, [L.LinearLR(o, 0.1, 1.0, 5), L.CosineAnnealingLR(o, 20)], [5]
    ),
    "ChainedScheduler": lambda o: L.ChainedScheduler(
        [L.ConstantLR(o, 0.1, 4), L.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.002, 7),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_torchs_schedulers_drive_the_step(rng, kind, backend, scheduler):
    """Every LRScheduler of torch, OneCycleLR and CyclicLR writing betas too, as with torch's."""
    params = make_parameters(rng)
    ours = kind.ours(params, lr=0.01, backend=backend)
    theirs = kind.theirs(twin(params), lr=0.01)
    outside = [scheduler(ours), scheduler(theirs)]

    def after(_):
        for s in outside:
            s.step()
        for key in kind.hyperparameters:
            assert ours.param_groups[0][key] == theirs.param_groups[0][key]

    run(rng, 30, ours, theirs, after=after)
    assert_near(ours, theirs)


@pytest.mark.parametrize("name", ["StepLR", "OneCycleLR", "SequentialLR"])
def test_torchs_schedulers_fill_a_tensor_lr(rng, kind, name):
    """With a Tensor lr the scheduler fills that Tensor, and the step follows.

    (SequentialLR up to torch 2.9 puts another tensor there, in torch's optimizer, too.)
    """
    params = make_parameters(rng)
    lr, same = (torch.tensor(0.01, dtype=torch.float64) for _ in range(2))
    ours = kind.ours(params, lr=lr)
    theirs = kind.theirs(twin(params), lr=same)
    outside = [SCHEDULERS[name](ours), SCHEDULERS[name](theirs)]
    run(rng, 25, ours, theirs, after=lambda _: [s.step() for s in outside])
    assert (ours.param_groups[0]["lr"] is lr) == (theirs.param_groups[0]["lr"] is same)
    assert name == "SequentialLR" or ours.param_groups[0]["lr"] is lr
    assert_near(ours, theirs)


def test_reduce_lr_on_plateau_drives_the_step(rng, kind, backend):
    """ReduceLROnPlateau, as with torch's AdamW."""
    params = make_parameters(rng)
    ours = kind.ours(params, lr=0.05, backend=backend)
    theirs = kind.theirs(twin(params), lr=0.05)
    outside = [L.ReduceLROnPlateau(o, factor=0.5, patience=2) for o in (ours, theirs)]
    losses = rng.numpy.random(30)
    run(rng, 30, ours, theirs, after=lambda i: [s.step(losses[i]) for s in outside])
    assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"] < 0.05
    assert_near(ours, theirs)


def test_a_scheduler_may_lead_betas_while_a_schedule_leads_lr(rng, kind):
    """OneCycleLR writes lr and betas over the schedules of both: one warning each."""
    params = make_parameters(rng)
    rising = schedules.linear(0.5, 0.9, 10)
    has_betas = "betas" in kind.hyperparameters
    scheduled = {"betas": (rising, 0.999)} if has_betas else {"momentum": rising}
    started = {"betas": (0.5, 0.999)} if has_betas else {"momentum": 0.5}
    ours = kind.ours(params, lr=schedules.linear(0.1, 0.0, 10), **scheduled)
    theirs = kind.theirs(twin(params), lr=0.1, **started)
    outside = [L.OneCycleLR(o, 0.05, 30) for o in (ours, theirs)]
    with pytest.warns(UserWarning) as seen:
        run(rng, 20, ours, theirs, after=lambda _: [s.step() for s in outside])
    named = ["beta1" if has_betas else "momentum", "lr"]
    assert sorted(str(w.message).split(": ")[1].split()[0] for w in seen) == sorted(named)
    assert_near(ours, theirs)


def test_recursive_schedulers_read_what_they_wrote(rng, kind):
    """Over a schedule, ExponentialLR multiplies the value that it wrote last: no mirror between."""
    opt = kind.ours(make_parameters(rng), lr=schedules.linear(0.1, 0.2, 10))
    outside = L.ExponentialLR(opt, 0.5)
    values = []
    with pytest.warns(UserWarning, match="lr") as seen:
        for _ in range(6):
            give_gradients(rng, opt)
            opt.step()
            outside.step()
            values.append(opt.param_groups[0]["lr"])
    assert values == [values[0] * 0.5**i for i in range(6)]
    assert len(seen) == 1


def test_a_scheduler_that_writes_back_what_it_read_leaves_the_lead(rng, kind):
    """StepLR writes the mirrored value back between its drops: the schedule leads until a drop."""
    lr = schedules.linear(0.1, 0.0, 50)
    opt = kind.ours(make_parameters(rng), lr=lr)
    outside = L.StepLR(opt, 10, 0.5)
    run(rng, 9, opt, after=lambda i: outside.step())
    assert opt.param_groups[0]["lr"] == lr(9)


def test_schedulers_wrap_step_without_complaint(rng, kind):
    """LRScheduler wraps step.__func__ and sees that the optimizer steps first (no warning)."""
    opt = kind.ours(make_parameters(rng))
    assert opt.step.__func__ and opt.step.__self__ is opt
    outside = L.StepLR(opt, 1)
    assert hasattr(opt.step, "_wrapped_by_lr_sched")
    run(rng, 2, opt, after=lambda _: outside.step())
    assert opt._opt_called
