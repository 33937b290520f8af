"""What from_torch refuses, and that the message says what and why."""

import pytest
import torch
from torch.optim import lr_scheduler as torch_lr
from torch.optim.swa_utils import SWALR

from lrfused import schedules as S

from .stepping import optimizer


class Custom(torch_lr.StepLR):
    """A subclass may do anything."""


def sequential(opt):
    return torch_lr.SequentialLR(
        opt, [torch_lr.LinearLR(opt), torch_lr.CosineAnnealingLR(opt, 10)], [5]
    )


def chained(opt):
    return torch_lr.ChainedScheduler([torch_lr.LinearLR(opt), torch_lr.ExponentialLR(opt, 0.9)])


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch_lr.StepLR(o, 10),
        lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 10),
        lambda o: torch_lr.OneCycleLR(o, 1.0, 10),
        lambda o: torch_lr.LambdaLR(o, lambda t: 1.0),
        sequential,
        chained,
    ],
)
@pytest.mark.parametrize("times", [1, 2, 6])
def test_a_scheduler_that_was_stepped_is_refused(make, times):
    opt = optimizer(1.0)
    scheduler = make(opt)
    for _ in range(times):
        opt.step()
        scheduler.step()
    with pytest.raises(ValueError, match=f"scheduler: .* last_epoch {times}"):
        S.from_torch(scheduler, 5)


def test_a_scheduler_that_resumes_is_refused():
    opt = optimizer(1.0)
    opt.param_groups[0]["initial_lr"] = 1.0
    with pytest.raises(ValueError, match="last_epoch 8"):
        S.from_torch(torch_lr.StepLR(opt, 10, last_epoch=7))


def test_a_part_of_a_sequence_is_refused():
    opt = optimizer(1.0)
    scheduler = sequential(opt)
    with pytest.raises(ValueError, match="last_epoch -1"):
        S.from_torch(scheduler._schedulers[1])


def test_an_lr_that_was_changed_is_refused():
    opt = optimizer(1.0, 0.5)
    scheduler = torch_lr.StepLR(opt, 10)
    opt.param_groups[1]["lr"] = 0.25
    with pytest.raises(ValueError, match=r"scheduler: .*\[1\.0, 0\.5\].*\[1\.0, 0\.25\]"):
        S.from_torch(scheduler)


def test_a_group_that_was_added_is_refused():
    opt = optimizer(1.0)
    scheduler = torch_lr.StepLR(opt, 10)
    opt.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    with pytest.raises(ValueError, match="scheduler: the lrs must be those that it wrote"):
        S.from_torch(scheduler)


def test_reduce_on_plateau_is_refused_and_points_to_input():
    with pytest.raises(ValueError, match=r"ReduceLROnPlateau .* schedules\.input"):
        S.from_torch(torch_lr.ReduceLROnPlateau(optimizer(1.0)), 10)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda o: Custom(o, 10), "test_errors.Custom"),
        (lambda o: SWALR(o, 0.1), "torch.optim.swa_utils.SWALR"),
        (lambda o: torch_lr.ChainedScheduler([Custom(o, 10)]), "test_errors.Custom"),
        (lambda o: o, "torch.optim.adamw.AdamW"),
        (lambda o: None, "builtins.NoneType"),
        (lambda o: 0.1, "builtins.float"),
    ],
)
def test_unknown_types_are_named(make, name):
    with pytest.raises(TypeError, match=f"scheduler: .*{name}"):
        S.from_torch(make(optimizer(1.0)), 10)


def test_bad_arguments_are_refused():
    scheduler = torch_lr.StepLR(optimizer(1.0), 10)
    with pytest.raises(ValueError, match="what: must be one of 'lr', 'momentum', got 'beta1'"):
        S.from_torch(scheduler, what="beta1")
    with pytest.raises(ValueError, match="steps: must be at least 0, got -1"):
        S.from_torch(scheduler, -1)
    with pytest.raises(TypeError, match=r"steps: must be an integer, got 1\.0"):
        S.from_torch(scheduler, 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch_lr.StepLR(o, 10),
        sequential,
        lambda o: torch_lr.OneCycleLR(o, 1.0, 10, cycle_momentum=False),
        lambda o: torch_lr.CyclicLR(o, 0.1, 1.0, 10, cycle_momentum=False),
    ],
)
def test_a_momentum_that_is_left_alone_is_refused(make):
    scheduler = make(optimizer(1.0))
    name = type(scheduler).__name__
    with pytest.raises(ValueError, match=f"what: {name} leaves the momentum alone"):
        S.from_torch(scheduler, 10, what="momentum")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: torch_lr.CosineAnnealingLR(o, 0), "T_max: must be greater than 0, got 0"),
        (lambda o: torch_lr.StepLR(o, 0), "step_size: must be at least 1, got 0"),
    ],
)
def test_lengths_that_torch_only_stumbles_over_later_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        S.from_torch(make(optimizer(1.0)))
