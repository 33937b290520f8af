"""What leads after a rewind, and where counters are: closed forms, SGD by gradients of 1."""

import copy
import warnings

import pytest
import torch

import lrfused
from lrfused import schedules as S

pytestmark = pytest.mark.filterwarnings("ignore:param_groups.* overrides its schedule")


def sgd(lr):
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    return weight, lrfused.SGD([weight], lr=lr)


def moved(weight, opt):
    """By how much the next step moves the weight."""
    before, weight.grad = weight.item(), torch.ones_like(weight)
    opt.step()
    return before - weight.item()


FALLING = S.linear(1.0, 0.0, 8)


def test_a_schedule_of_now_goes_on_at_the_step_of_then():
    weight, opt = sgd(0.25)
    for _ in range(2):
        assert moved(weight, opt) == 0.25
    other, scheduled = sgd(FALLING)
    scheduled.rewind(opt.snapshot())
    assert other.item() == -0.5 and scheduled.param_groups[0]["lr"] == 0.75
    assert moved(other, scheduled) == 0.75


def test_a_number_of_now_stays_where_a_schedule_led():
    weight, opt = sgd(FALLING)
    assert moved(weight, opt) == 1.0
    for lr in (0.25, torch.tensor(0.25)):
        other, plain = sgd(lr)
        plain.rewind(opt.snapshot())
        assert float(plain.param_groups[0]["lr"]) == 0.25 and moved(other, plain) == 0.25


def test_an_override_of_now_ends_where_a_schedule_led():
    weight, opt = sgd(FALLING)
    assert moved(weight, opt) == 1.0
    snapshot = opt.snapshot()
    opt.param_groups[0]["lr"] = 0.25
    assert moved(weight, opt) == 0.25
    opt.rewind(snapshot)
    assert opt.param_groups[0]["lr"] == 0.875 and moved(weight, opt) == 0.875
    opt.rewind(snapshot)
    opt.param_groups[0]["lr"] = 0.25  # not yet taken in by a step
    opt.rewind(snapshot)
    assert moved(weight, opt) == 0.875


def test_an_override_of_then_leads_until_the_mirror_is_written_back():
    weight, opt = sgd(FALLING)
    opt.param_groups[0]["lr"] = 0.25
    assert moved(weight, opt) == 0.25
    snapshot, (other, scheduled) = opt.snapshot(), sgd(FALLING)
    for target, p in ((opt, weight), (scheduled, other)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it was warned of when it was written
            target.rewind(snapshot)
            assert moved(p, target) == 0.25
        target.param_groups[0]["lr"] = 1.0  # which stood there when it was overridden
        assert moved(p, target) == 0.75


def test_an_override_of_then_leads_over_a_value_that_was_loaded_since():
    """As ZeroRedundancyOptimizer loads: into the groups, perhaps again before the next step."""
    weight, opt = sgd(FALLING)
    opt.param_groups[0]["lr"] = 0.25
    assert moved(weight, opt) == 0.25
    snapshot, (group,) = opt.snapshot(), copy.deepcopy(opt.state_dict())["param_groups"]
    opt.param_groups[0].update({k: x for k, x in group.items() if k != "params"})
    opt.sync_mirrors()
    assert opt.param_groups[0]["lr"] == FALLING(1)  # what was loaded is no override
    opt.rewind(snapshot)
    assert moved(weight, opt) == 0.25


def test_a_tensor_keeps_its_place_and_gets_its_value():
    lr = torch.tensor(0.5, dtype=torch.float64)
    weight, opt = sgd(lr)
    snapshot = opt.snapshot()
    lr.fill_(0.125)
    opt.rewind(snapshot)
    assert opt.param_groups[0]["lr"] is lr and moved(weight, opt) == 0.5
    opt.param_groups[0]["lr"] = 0.125
    opt.rewind(snapshot)
    assert opt.param_groups[0]["lr"] == 0.5 and moved(weight, opt) == 0.5


def test_counters_are_those_of_then():
    """A step set by hand, a scale that grew, skips in a row."""
    weight = torch.nn.Parameter(torch.zeros(3))
    policy = lrfused.LossScale(init=8.0, growth_interval=2, hysteresis=2)
    opt = lrfused.AdamW([weight], lr=FALLING, loss_scale=policy)

    def step(value):
        opt.scale(weight.sum())
        weight.grad = torch.full_like(weight, value)
        opt.step()

    for value in (1.0, 1.0, torch.inf):
        step(value)
    opt.set_step(1)  # less than the count
    snapshot, then = opt.snapshot(), opt.metrics()
    for value in (torch.inf, 1.0, 1.0, 1.0):
        step(value)
    assert opt.metrics()["loss_scale"] == 16.0 and opt.metrics()["skipped_steps"] == 2
    opt.rewind(snapshot)
    now = opt.metrics()
    for name in ("steps", "skipped_steps", "consecutive_skips", "clipped_steps", "loss_scale"):
        assert now[name] == then[name]
    assert now["steps"] == 1 and now["loss_scale"] == 16.0 and opt.state[weight]["step"] == 2.0
    step(torch.inf)  # the second in a row, of which hysteresis lets one pass
    assert opt.metrics()["loss_scale"] == 8.0


def test_a_scale_starts_anew_where_there_was_none():
    weight, plain = sgd(0.25)
    assert moved(weight, plain) == 0.25
    opt = lrfused.SGD([weight], lr=0.25, loss_scale=lrfused.LossScale(init=8.0))
    opt.rewind(plain.snapshot())
    assert opt.metrics()["loss_scale"] == 8.0 and opt.metrics()["steps"] == 1


def test_counts_above_float32_are_exact():
    weight = torch.nn.Parameter(torch.zeros(2))
    opt = lrfused.AdamW([weight])
    weight.grad = torch.ones(2)
    opt.step()
    saved = opt.state_dict()
    saved["state"][0]["step"] = torch.tensor(2.0**24 + 3, dtype=torch.float64)
    opt.load_state_dict(saved)
    snapshot = opt.snapshot()
    opt.step()
    opt.rewind(snapshot)
    assert opt.state_dict()["state"][0]["step"] == 2.0**24 + 3
