"""Training with the converted schedules is training with torch's AdamW and its scheduler."""

import pytest
import torch
from torch.optim import lr_scheduler as torch_lr

import lrfused
from lrfused import schedules as S

from .stepping import one_a_group

STEPS = 60


def warmed_cosine(opt):
    parts = [torch_lr.LinearLR(opt, 0.1, total_iters=10), torch_lr.CosineAnnealingLR(opt, 50)]
    return torch_lr.SequentialLR(opt, parts, [10])


CASES = {
    "step": (lambda o: torch_lr.StepLR(o, 20), False),
    "restarts": (lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 7, 2), False),
    "one cycle": (lambda o: torch_lr.OneCycleLR(o, [0.02, 0.01], STEPS), True),
    "cyclic": (lambda o: torch_lr.CyclicLR(o, 1e-3, 1e-2, 7, mode="triangular2"), True),
    "sequence": (warmed_cosine, False),
    "chain": (
        lambda o: torch_lr.ChainedScheduler(
            [torch_lr.ConstantLR(o, 0.5, 9), torch_lr.ExponentialLR(o, 0.97)]
        ),
        False,
    ),
}


def layers(dtype):
    return torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(
        dtype
    )


def train(model, opt, data, scheduler=None):
    for x, y in data:
        opt.zero_grad()
        (model(x) - y).square().mean().backward()
        opt.step()
        if scheduler is not None:
            scheduler.step()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", CASES)
def test_training_with_a_converted_schedule_is_the_same(name, dtype, bound, rng):
    make, cycles_momentum = CASES[name]
    shape = (STEPS, 4)
    xs = torch.randn(*shape, 7, generator=rng.torch, dtype=dtype)
    ys = torch.randn(*shape, 3, generator=rng.torch, dtype=dtype)
    data = list(zip(xs, ys, strict=True))
    theirs, ours = layers(dtype), layers(dtype)
    ours.load_state_dict(theirs.state_dict())

    def groups(model, lrs):
        halves = [list(model[0].parameters()), list(model[2].parameters())]
        return [{"params": p, "lr": lr} for p, lr in zip(halves, lrs, strict=True)]

    opt = torch.optim.AdamW(groups(theirs, [0.02, 0.005]), weight_decay=0.1)
    scheduler = make(opt)
    lrs = one_a_group(S.from_torch(scheduler, STEPS), 2)
    beta1 = S.from_torch(scheduler, STEPS, what="momentum") if cycles_momentum else 0.9
    fused = lrfused.AdamW(groups(ours, lrs), betas=(beta1, 0.999), weight_decay=0.1)

    train(theirs, opt, data, scheduler)
    train(ours, fused, data)
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert (p - q).abs().max() <= bound * p.abs().max()
