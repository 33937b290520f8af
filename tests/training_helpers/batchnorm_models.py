"""A model with a BatchNorm, its batches, and a schedule."""

import torch
from torch import nn

from lrfused import schedules as S

FALLING = S.linear(0.5, 0.0625, steps=7)


def network(**options):
    return nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, **options)).double()


def batch(rng):
    return 2 + torch.randn(9, 5, generator=rng.torch, dtype=torch.float64)


def take_step(model, opt, x):
    opt.zero_grad()
    model(x).square().sum().backward()
    opt.step()
