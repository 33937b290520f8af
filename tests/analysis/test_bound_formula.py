"""The estimate of a Hessian at initialisation against its formula, written out and by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lrfused.analysis import hessian_bound
from lrfused.analysis.chain import ACTIVATIONS, chain_of

ROOT = math.sqrt(3)
BENDS = {nn.ReLU: 0.0, nn.Tanh: 4 / (3 * ROOT), nn.Sigmoid: 1 / (6 * ROOT), nn.Identity: 0.0}
SLOPES = {nn.ReLU: 1.0, nn.Tanh: 1.0, nn.Sigmoid: 0.25, nn.Identity: 1.0}
SQUARE_SLOPES = {nn.ReLU: 0.5, nn.Tanh: 1.0, nn.Sigmoid: 1 / 16, nn.Identity: 1.0}
MOMENTS = {  # the mean of phi(z)**2 from those of z**2
    nn.ReLU: lambda z2: z2 / 2,
    nn.Tanh: lambda z2: z2,
    nn.Sigmoid: lambda z2: z2 / 16 + 1 / 4,
    nn.Identity: lambda z2: z2,
}


def written_out(widths, kinds, variances, bias_variances, moment, curvature, slope):
    """The docstring's formula for perceptrons, sum by sum."""
    depth = len(variances)
    sizes, ins = widths[1:], widths[:-1]
    squares, u = moment * ins[0], []
    for i in range(depth):
        u.append(math.sqrt(squares + 1))
        z2 = sizes[i] * (variances[i] * squares + bias_variances[i])
        squares = sizes[i] * MOMENTS[kinds[i]](z2 / sizes[i])

    def dz(low, high):
        if low == high:
            return 1.0
        norm = math.sqrt(variances[high]) * (math.sqrt(sizes[high]) + math.sqrt(ins[high]))
        product = norm * SLOPES[kinds[high - 1]] * dz(low, high - 1)
        square = sizes[low]
        for k in range(low + 1, high + 1):
            square *= sizes[k] * variances[k] * SQUARE_SLOPES[kinds[k - 1]]
        return min(product, math.sqrt(square))

    def df(low):
        return SLOPES[kinds[-1]] * dz(low, depth - 1)

    def element(low, m):
        value = curvature * df(low) * df(m) * u[low] * u[m]
        if low < m:
            value += slope * df(m) * SLOPES[kinds[m - 1]] * dz(low, m - 1) * u[low]
        for h in range(m, depth):
            g = 1.0
            if h < depth - 1:
                g = df(h + 1) * math.sqrt(variances[h + 1] * 2 * math.log(2 * sizes[h]))
            value += slope * BENDS[kinds[h]] * g * dz(low, h) * dz(m, h) * u[low] * u[m]
        return value

    return [[element(min(r, c), max(r, c)) for c in range(depth)] for r in range(depth)]


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_the_formula_written_out(rng, depth):
    for _ in range(10):
        widths = [int(n) for n in rng.numpy.integers(1, 60, depth + 1)]
        kinds = [list(BENDS)[i] for i in rng.numpy.integers(0, 4, depth)]
        layers = [nn.Linear(a, b, dtype=torch.float64) for a, b in pairwise(widths)]
        scales = rng.numpy.uniform(0.1, 2.0, depth)
        with torch.no_grad():
            for layer, scale in zip(layers, scales, strict=True):
                layer.weight.normal_(generator=rng.torch).mul_(scale / layer.in_features**0.5)
                layer.bias.normal_(generator=rng.torch)
        variances = [layer.weight.detach().square().mean().item() for layer in layers]
        bias_variances = [layer.bias.detach().square().mean().item() for layer in layers]
        moment, curvature, slope = rng.numpy.uniform(0.1, 3, 3)
        matrix = written_out(widths, kinds, variances, bias_variances, moment, curvature, slope)
        pairs = zip(layers, kinds, strict=True)
        parts = [part for layer, kind in pairs for part in (layer, kind())]
        got = hessian_bound(
            nn.Sequential(*parts),
            input_moment=moment,
            loss_curvature=curvature,
            loss_slope=slope,
        )
        assert got == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-10)


def constant(*layers):
    """Layers whose weights are 0.3, and biases 0.2."""
    for layer in layers:
        nn.init.constant_(layer.weight, 0.3)
        nn.init.constant_(layer.bias, 0.2)
    return nn.Sequential(layers[0], nn.Tanh(), *layers[1:])


def test_convolutions_that_are_linear_layers():
    """A kernel as large as the input, one without overlaps, and kernels of a single point."""
    full = hessian_bound(constant(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 2)), (3, 2, 2))
    first, tanh, linear = constant(nn.Conv2d(3, 3, 1), nn.Linear(12, 4))
    flat = hessian_bound(nn.Sequential(first, tanh, nn.Flatten(), linear), (3, 2, 2))
    assert full == pytest.approx(flat)

    patches = hessian_bound(constant(nn.Linear(12, 4)), (6, 12))
    apart = hessian_bound(constant(nn.Conv2d(3, 4, 2, stride=2)), (3, 6, 4))
    assert apart == pytest.approx(patches)

    points = hessian_bound(constant(nn.Conv1d(12, 5, 1), nn.Conv1d(5, 4, 1)), (12, 6))
    linear = hessian_bound(constant(nn.Linear(12, 5), nn.Linear(5, 4)), (6, 12))
    assert points == pytest.approx(linear)


def test_convolutions_by_hand():
    """10 inputs in 1 channel; windows of 3: 4 channels x 8; windows of 2 in 2 groups: 6 x 7."""
    model = constant(nn.Conv1d(1, 4, 3), nn.Conv1d(4, 6, 2, groups=2))
    variance, bias_variance = 0.3**2, 0.2**2
    u1 = math.sqrt(3 * 10 + 8)
    squares = 4 * 3 * variance * 10 + 4 * 8 * bias_variance
    u2 = math.sqrt(2 * squares + 7)
    norm = math.sqrt(2 * variance) * (math.sqrt(3) + math.sqrt(4))
    back = min(norm, math.sqrt(4 * 8 * (3 * 2) * variance))
    g = math.sqrt(variance * 2 * math.log(2 * 4 * 8))
    corner = 0.5 * back * u1 * u2 + 0.7 * math.sqrt(2) * u1
    top = (0.5 * back**2 + 0.7 * 4 / math.sqrt(27) * g) * u1**2
    want = np.linalg.eigvalsh([[top, corner], [corner, 0.5 * u2**2]])[-1]
    assert hessian_bound(model, (1, 10), loss_slope=0.7) == pytest.approx(want, rel=1e-6)


def grid():
    return torch.linspace(-12, 12, 240_001, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    "module",
    [*(kind() for kind in ACTIVATIONS), nn.GELU("tanh"), nn.LeakyReLU(0.3), nn.LeakyReLU(-2.0)],
)
def test_what_is_known_of_activations(module):
    """The slope and the bend are the largest ones; averages over z and -z are at most as said."""
    chain = nn.Sequential(nn.Linear(1, 1), module)
    known = chain_of(chain, None)[1][0].activation
    z = grid()
    value = module(z)
    (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    bend = torch.zeros(1)
    if slope.requires_grad:
        (bend,) = torch.autograd.grad(slope.sum(), z)
    value, slope = value.detach(), slope.detach()
    assert slope.abs().max().item() == pytest.approx(known.slope, rel=1e-3)
    assert bend.abs().max().item() == pytest.approx(known.bend, rel=1e-2, abs=1e-12)
    inner = z.detach().abs() > 1e-9  # at 0 a ReLU has one slope of two
    mean = 0.5 * (slope**2 + slope.flip(0) ** 2)[inner]
    assert mean.max().item() == pytest.approx(known.square_slope, rel=1e-3)
    mean = 0.5 * (value**2 + value.flip(0) ** 2)
    limit = known.gain * z.detach() ** 2 + known.offset
    assert (mean <= limit * (1 + 1e-9) + 1e-12).all()
    assert (mean[inner] / limit[inner]).max().item() > 0.99
