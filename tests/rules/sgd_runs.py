"""Parameters and gradients for runs of SGD beside torch's."""

import torch

SHAPES = [(), (3,), (4, 5), (70,)]


def parameters(rng, dtype):
    values = [torch.randn(shape, generator=rng.torch, dtype=torch.float64) for shape in SHAPES]
    return [[torch.nn.Parameter(value.to(dtype, copy=True)) for value in values] for _ in range(2)]


def give_gradients(rng, *lists):
    """The same to both, to each parameter four times out of five, to one at least."""
    some = rng.numpy.random(len(SHAPES)) < 0.8
    some[rng.numpy.integers(len(SHAPES))] = True
    for pair, present in zip(zip(*lists, strict=True), some, strict=True):
        gradient = torch.randn(pair[0].shape, generator=rng.torch, dtype=torch.float64)
        for p in pair:
            p.grad = gradient.to(p.dtype, copy=True) if present else None


def step(opt, *params, gradient=1.0):
    """A step with this gradient everywhere."""
    for p in params:
        p.grad = torch.full_like(p, gradient)
    opt.step()
