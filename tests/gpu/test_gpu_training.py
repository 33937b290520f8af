"""float16 autocast on a GPU: GradScaler's scale inside the step, and torch's whole pipeline."""

import pytest
import torch

import lrfused

from .helpers import nothing_waits
from .target import launched, wait

pytestmark = pytest.mark.gpu

MAX_NORM = 1.0
SETTINGS = {
    "adamw": {"lr": 3e-4, "weight_decay": 0.05},
    "sgd": {"lr": 3e-3, "momentum": 0.9, "weight_decay": 0.05},
    "lion": {"lr": 1e-4, "weight_decay": 0.05},
}
# How far a parameter is moved by a step of lr 1, at most.
LARGEST_MOVE = {"adamw": 10.0, "sgd": 100.0}
POLICY = {"growth_interval": 20}
WITH_TORCHS = pytest.mark.parametrize("rule", LARGEST_MOVE, indirect=True)
OVERFLOWS = {3, 4, 5, 60, 61, 120, 199}


class Training:
    """A small model with its batches on the target, in autocast."""

    def __init__(self, rng, target, steps):
        self.target, self.device = target, target.device
        layers = torch.nn.Linear(12, 24), torch.nn.Tanh(), torch.nn.Linear(24, 3)
        self.model = torch.nn.Sequential(*layers)
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(torch.randn(p.shape, generator=rng.torch) * 0.3)
        self.model.to(self.device)
        self.params = list(self.model.parameters())
        self.steps = steps
        self.inputs = torch.randn(steps, 16, 12, generator=rng.torch).to(self.device)
        self.targets = torch.randn(steps, 16, 3, generator=rng.torch).to(self.device)

    def backward(self, step, scale):
        """At some steps the loss is so large that its float16 gradients are infinite."""
        self.model.zero_grad()
        with torch.autocast(self.device.type, dtype=torch.float16):
            out = self.model(self.inputs[step])
        loss = (out.float() - self.targets[step]).square().mean()
        scale(loss * (1e25 if step in OVERFLOWS else 1.0)).backward()

    def scaler(self):
        return torch.amp.GradScaler(self.device.type, **POLICY)


def optimizer(rule, training, target, **options):
    """lrfused over a training's parameters."""
    made = {"backend": target.backend, **SETTINGS[rule.name], **options}
    return rule.optimizer(training.params, **made)


class TorchTwin:
    """torch's whole pipeline over the same scaled gradients as another training."""

    def __init__(self, training, rule):
        self.training, self.rule = training, rule
        self.params = [torch.nn.Parameter(p.detach().clone()) for p in training.params]
        self.opt = rule.torchs(self.params, foreach=True, **SETTINGS[rule.name])
        self.scaler = training.scaler()
        self.scaler.scale(torch.ones((), device=training.device))

    def step(self):
        for p, other in zip(self.params, self.training.params, strict=True):
            p.grad = other.grad.clone()
        self.scaler.unscale_(self.opt)
        torch.nn.utils.clip_grad_norm_(self.params, MAX_NORM, foreach=True)
        self.scaler.step(self.opt)
        self.scaler.update()

    def assert_near(self):
        """Each step rounds differently by a few ulps of the parameter and of its update."""
        bound = 4 * 2.0**-23 * self.training.steps
        for p, q in zip(self.training.params, self.params, strict=True):
            moved = SETTINGS[self.rule.name]["lr"] * LARGEST_MOVE[self.rule.name]
            torch.testing.assert_close(p, q, rtol=bound, atol=bound * moved)


@WITH_TORCHS
def test_inside_torchs_grad_scaler(rng, target, rule):
    """The scaler hands over its scale: the same scales and skips, parameters within ulps."""
    training = Training(rng, target, target.count(200, dry=70))
    twin, scaler = TorchTwin(training, rule), training.scaler()
    opt = optimizer(rule, training, target, max_grad_norm=MAX_NORM)
    for step in range(training.steps):
        training.backward(step, scaler.scale)
        twin.step()
        scaler.step(opt)
        scaler.update()
        assert scaler.get_scale() == twin.scaler.get_scale(), step
    skipped = len([step for step in OVERFLOWS if step < training.steps])
    assert opt.metrics()["skipped_steps"] >= skipped
    twin.assert_near()


@WITH_TORCHS
def test_with_its_own_loss_scale(rng, target, rule):
    training = Training(rng, target, target.count(200, dry=70))
    twin = TorchTwin(training, rule)
    options = {"max_grad_norm": MAX_NORM, "loss_scale": lrfused.LossScale(**POLICY)}
    opt = optimizer(rule, training, target, **options)
    for step in range(training.steps):
        training.backward(step, opt.scale)
        twin.step()
        opt.step()
        assert opt.metrics()["loss_scale"] == twin.scaler.get_scale(), step
    assert opt.metrics()["clipped_steps"] > 0
    twin.assert_near()


def test_the_scaler_does_not_make_anything_wait(rng, target, rule):
    """grad_scale and found_inf stay on the device: nothing waits between backward and update."""
    training = Training(rng, target, target.count(30, dry=10))
    scaler = training.scaler()
    opt = optimizer(rule, training, target, max_grad_norm=MAX_NORM)
    for step in range(training.steps):
        training.backward(step, scaler.scale)
        if step == 3:
            wait()
        if step < 3:
            scaler.step(opt)
            scaler.update()
            continue
        with nothing_waits(target.device):
            scaler.step(opt)
            scaler.update()
    assert opt.metrics()["skipped_steps"] > 0


def test_attributes_as_tensors_are_two_launches(rng, target, rule, record_property):
    training = Training(rng, target, 5)
    opt = optimizer(rule, training, target, max_grad_norm=MAX_NORM)
    for step in range(2):
        training.backward(step, lambda loss: loss)
        opt.grad_scale = torch.full((), 2.0, device=target.device)
        opt.found_inf = torch.zeros((), device=target.device)
        opt.step()
    kernels = launched(opt.step).kernels
    record_property("kernels", kernels)
    assert len(kernels) <= 2, kernels
    before = [p.detach().clone() for p in training.params]
    opt.found_inf = torch.ones((), device=target.device)
    opt.step()
    for p, q in zip(training.params, before, strict=True):
        assert torch.equal(p, q)
