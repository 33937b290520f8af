"""batchnorm.schedule_momentum: running statistics against the recursion in float64."""

import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

import lrfused
from lrfused import batchnorm
from lrfused import schedules as S

from .batchnorm_models import FALLING, batch, network, take_step


class Expected:
    """The running statistics by their definition."""

    def __init__(self):
        self.mean = torch.zeros(3, dtype=torch.float64)
        self.var = torch.ones(3, dtype=torch.float64)

    def follow(self, values, momentum):
        self.mean = (1 - momentum) * self.mean + momentum * values.mean(0)
        self.var = (1 - momentum) * self.var + momentum * values.var(0)

    def assert_are(self, module):
        torch.testing.assert_close(module.running_mean, self.mean, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(module.running_var, self.var, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cls", [lrfused.AdamW, lrfused.SGD, lrfused.Lion])
@pytest.mark.parametrize("lr", [0.01, S.linear(0.0, 0.02, steps=5)], ids=["number", "schedule"])
def test_the_statistics_follow_the_optimizers_step(rng, cls, lr):
    """Two forwards a step, with the momentum of that step; also where nothing else is scheduled."""
    model, want = network(), Expected()
    opt = cls(model.parameters(), lr=lr)
    batchnorm.schedule_momentum(model, FALLING, opt)
    for t in range(10):
        for x in (batch(rng), batch(rng)):
            with torch.no_grad():
                want.follow(model[0](x), FALLING(t))
            out = model(x)
            assert model[1].momentum == FALLING(t)
        opt.zero_grad()
        out.square().sum().backward()
        opt.step()
    want.assert_are(model[1])


def test_without_an_optimizer_forwards_are_counted(rng):
    """Those of the model in training mode alone."""
    model, want = network(), Expected()
    handle = batchnorm.schedule_momentum(model, FALLING)
    for t in range(10):
        x = batch(rng)
        with torch.no_grad():
            want.follow(model[0](x), FALLING(t))
        assert handle.step == t
        model(x)
        model.eval()
        model(batch(rng))
        model.train()
    want.assert_are(model[1])


def test_skipped_steps_do_not_count(rng):
    model = network()
    opt = lrfused.SGD(model.parameters(), lr=0.01, nonfinite="skip")
    batchnorm.schedule_momentum(model, FALLING, opt)
    for scale, completed in ((1.0, 1), (math.inf, 1), (1.0, 2)):
        opt.zero_grad()
        (model(batch(rng)).square().sum() * scale).backward()
        opt.step()
        model(batch(rng))
        assert model[1].momentum == FALLING(completed)


def test_inputs_of_the_schedule_are_read_at_each_forward(rng):
    model, knob = network(), torch.tensor(0.25)
    batchnorm.schedule_momentum(model, S.input(knob, "knob") / (S.step + 1))
    for t, value in enumerate((0.25, 0.75, 0.5)):
        knob.fill_(value)
        model(batch(rng))
        assert model[1].momentum == value / (t + 1)


def test_the_step_that_the_host_knows(rng):
    """Completed steps; a schedule is shown at that step in param_groups."""
    model = network()
    opt = lrfused.SGD(model.parameters(), lr=FALLING, nonfinite="skip")
    assert opt.known_step == 0
    for scale, completed in ((1.0, 1), (math.inf, 1), (1.0, 2)):
        opt.zero_grad()
        (model(batch(rng)).square().sum() * scale).backward()
        opt.step()
        assert opt.known_step == completed
    opt.set_step(5)
    assert opt.known_step == 5 and opt.param_groups[0]["lr"] == FALLING(5)


def test_a_resumed_run_goes_on(rng):
    """After the load of a checkpoint, and after set_step."""
    first, second = network(), network()
    opts = [lrfused.AdamW(model.parameters()) for model in (first, second)]
    for _ in range(3):
        take_step(first, opts[0], batch(rng))
    handle = batchnorm.schedule_momentum(second, FALLING, opts[1])
    opts[1].load_state_dict(opts[0].state_dict())
    second(batch(rng))
    assert handle.step == 3 and second[1].momentum == FALLING(3)
    opts[1].set_step(5)
    second(batch(rng))
    assert second[1].momentum == FALLING(5)


@pytest.mark.parametrize(
    "make", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LazyBatchNorm2d]
)
@pytest.mark.parametrize("before", [0.25, None])
def test_every_kind_and_its_momentum_before(make, before):
    module = make(momentum=before) if make is nn.LazyBatchNorm2d else make(3, momentum=before)
    model = nn.Sequential(nn.Identity(), module, nn.InstanceNorm1d(3, track_running_stats=True))
    handle = batchnorm.schedule_momentum(model, FALLING)
    assert module.momentum == 0.5 and model[2].momentum == 0.1
    handle.remove()
    assert module.momentum == before
    assert not model._forward_pre_hooks
    module.momentum = 0.5
    handle.remove()  # nothing is left to restore
    assert module.momentum == 0.5


def test_a_removed_handle_does_nothing_more(rng):
    model = network(momentum=0.25)
    handle = batchnorm.schedule_momentum(model, FALLING)
    model(batch(rng))
    handle.remove()
    model(batch(rng))
    assert model[1].momentum == 0.25 and handle.step == 1


def test_frozen_modules_keep_their_statistics(rng):
    model = network()
    batchnorm.schedule_momentum(model, FALLING)
    model[1].eval()
    before = model[1].running_mean.clone()
    model(batch(rng))
    assert torch.equal(model[1].running_mean, before)


def test_what_someone_else_writes_stays(rng):
    model = network()
    handle = batchnorm.schedule_momentum(model, FALLING)
    model(batch(rng))
    model[1].momentum = 0.75
    model(batch(rng))
    handle.remove()
    assert model[1].momentum == 0.75


def test_update_bn_of_torch_averages(rng):
    """It sets the momentum to None for a while; afterwards the schedule goes on."""
    model = network()
    batchnorm.schedule_momentum(model, FALLING)
    model(batch(rng))
    batches = [batch(rng) for _ in range(3)]
    update_bn(batches, model)
    with torch.no_grad():
        mean = torch.stack([model[0](x).mean(0) for x in batches]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean, rtol=1e-12, atol=1e-14)
    model(batch(rng))
    assert model[1].momentum == FALLING(4)


def test_a_second_call_replaces_the_first(rng):
    model = network(momentum=0.25)
    first = batchnorm.schedule_momentum(model, FALLING)
    second = batchnorm.schedule_momentum(model, S.constant(0.125))
    first.remove()
    model(batch(rng))
    assert model[1].momentum == 0.125
    second.remove()
    assert model[1].momentum == 0.25


def test_a_second_call_that_fails_changes_nothing(rng):
    model = network()
    batchnorm.schedule_momentum(model, FALLING)
    with pytest.raises(ValueError, match=r"^schedule: must be in"):
        batchnorm.schedule_momentum(model, S.constant(2.0))
    model(batch(rng))
    model(batch(rng))
    assert model[1].momentum == FALLING(1)


@pytest.mark.parametrize(
    ("model", "schedule", "message"),
    [
        (nn.Linear(2, 2), FALLING, "^model: has no BatchNorm module with running statistics"),
        (nn.BatchNorm1d(2, track_running_stats=False), FALLING, "^model: has no BatchNorm"),
        (nn.InstanceNorm1d(2, track_running_stats=True), FALLING, "^model: has no BatchNorm"),
        (nn.BatchNorm1d(2), S.constant(1.5), r"^schedule: must be in \[0, 1\], got 1.5 at step 0"),
        (nn.BatchNorm1d(2), -0.5 * (S.step + 1), r"^schedule: .* got -0.5 at step 0"),
        (nn.BatchNorm1d(2), 0.0 / S.step, r"^schedule: .* got nan at step 0"),
    ],
)
def test_wrong_values(model, schedule, message):
    with pytest.raises(ValueError, match=message):
        batchnorm.schedule_momentum(model, schedule)
    assert not model._forward_pre_hooks


def test_a_value_that_leaves_the_range_later(rng):
    """The forward raises it, and writes and counts nothing."""
    model = network()
    handle = batchnorm.schedule_momentum(model, 0.5 + 0.5 * S.step)
    model(batch(rng))
    model(batch(rng))
    before = model[1].running_mean.clone()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^schedule: .* got 1.5 at step 2"):
            model(batch(rng))
    assert handle.step == 2 and model[1].momentum == 1.0
    assert torch.equal(model[1].running_mean, before)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((None, FALLING), "model"),
        ((nn.BatchNorm1d(2), 0.5), "schedule"),
        ((nn.BatchNorm1d(2), FALLING, torch.optim.SGD([torch.ones(1)])), "optimizer"),
        ((nn.BatchNorm1d(2), FALLING, 3), "optimizer"),
    ],
)
def test_wrong_types(arguments, name):
    with pytest.raises(TypeError, match=f"^{name}: must be"):
        batchnorm.schedule_momentum(*arguments)
