"""The estimate of a Hessian at initialisation against measured eigenvalues and closed forms."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lrfused.analysis import hessian_bound, largest_eigenvalue
from lrfused.analysis.chain import ACTIVATIONS, chain_of

INITIALISATIONS = {
    "torch's": lambda weight: None,
    "Xavier": nn.init.xavier_uniform_,
    "Kaiming": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}
# The estimate as a multiple of what is measured. With sigmoids it is so close that in small layers,
# whose weights are far from their statistics, what is measured can be a little more.
RANGES = {nn.ReLU: (1, 150), nn.Tanh: (1, 2000), nn.GELU: (1, 2000), nn.Sigmoid: (0.8, 20)}


def initialised(rng, model, how="torch's"):
    """A model with weights from this test's seed."""
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.numpy.integers(2**31)))
        for layer in model.modules():
            if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                layer.reset_parameters()
                INITIALISATIONS[how](layer.weight)
    return model.double()


def mlp(widths, activation):
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1])


def ratios(rng, model, shape, samples=32):
    """Estimate / measured, for cross-entropy and mean squared error, on standard normal inputs."""
    x = torch.randn(samples, *shape, generator=rng.torch, dtype=torch.float64)
    moment = x.square().mean().item()
    with torch.no_grad():
        outputs = model(x)
    k = outputs.shape[1]
    labels = torch.randint(k, (samples,), generator=rng.torch)
    targets = torch.randn(samples, k, generator=rng.torch, dtype=torch.float64)
    largest = (outputs - targets).norm(dim=1).max().item()

    def measured(loss):
        found = largest_eigenvalue(loss, model.parameters(), tolerance=1e-3, max_iterations=300)
        assert found.converged
        return found.value

    entropy = measured(lambda: nn.functional.cross_entropy(model(x), labels))
    squares = measured(lambda: nn.functional.mse_loss(model(x), targets))
    slope = {"loss_curvature": 2 / k, "loss_slope": 2 * largest / k}
    return (
        hessian_bound(model, shape, input_moment=moment) / entropy,
        hessian_bound(model, shape, input_moment=moment, **slope) / squares,
    )


@pytest.mark.parametrize("how", list(INITIALISATIONS))
@pytest.mark.parametrize("activation", list(RANGES))
@pytest.mark.parametrize("widths", [(9, 5), (16, 48, 7), (5, 20, 20, 3), (8, 16, 16, 16, 4)])
def test_the_estimate_of_perceptrons_against_what_is_measured(rng, widths, activation, how):
    """Above it, except for sigmoids: at least 0.8 of it. How far above is a range, too."""
    for _ in range(2):
        model = initialised(rng, mlp(widths, activation), how)
        for ratio in ratios(rng, model, widths[:1]):
            assert RANGES[activation][0] <= ratio <= RANGES[activation][1]


CONVOLUTIONAL = {
    "images": (
        (2, 9, 7),
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Sequential(nn.Conv2d(6, 6, (3, 1), groups=3, padding="same"), nn.LeakyReLU(0.2)),
            nn.Dropout().eval(),
            nn.Flatten(),
            nn.Linear(6 * 5 * 4, 4),
        ),
    ),
    "signals": (
        (3, 20),
        lambda: nn.Sequential(
            nn.Conv1d(3, 5, 5, dilation=2, bias=False),
            nn.SiLU(),
            nn.Conv1d(5, 2, 4, stride=3, padding="valid"),
            nn.Identity(),
            nn.Tanh(),
            nn.Flatten(),
        ),
    ),
    "volumes": ((1, 4, 4, 5), lambda: nn.Sequential(nn.Conv3d(1, 3, (2, 2, 3)), nn.Flatten())),
    "positions": ((6, 5), lambda: nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Flatten())),
}


SLOW = {"images": pytest.mark.slow}  # the others show the same kinds of layers


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW.get(n, ())) for n in CONVOLUTIONAL])
def test_the_estimate_of_convolutions_is_above_what_is_measured(rng, name):
    shape, make = CONVOLUTIONAL[name]
    for _ in range(3):
        for ratio in ratios(rng, initialised(rng, make()), shape):
            assert 1.0 <= ratio <= 5000


@pytest.mark.parametrize("bias", [True, False])
def test_one_layer_and_one_sample_is_exact(rng, bias):
    """Mean squared error over k outputs: 2 / k (|x|**2 + 1), or without the 1."""
    model = initialised(rng, nn.Linear(7, 3, bias=bias))
    x = torch.randn(1, 7, generator=rng.torch, dtype=torch.float64)
    target = torch.randn(1, 3, generator=rng.torch, dtype=torch.float64)
    want = 2 / 3 * (x.square().sum().item() + bias)
    moment = x.square().mean().item()
    bound = hessian_bound(model, input_moment=moment, loss_curvature=2 / 3)
    assert bound == pytest.approx(want, rel=1e-14)
    found = largest_eigenvalue(
        lambda: nn.functional.mse_loss(model(x), target), model.parameters(), tolerance=1e-9
    )
    assert found.value == pytest.approx(want, rel=1e-12)


def test_one_layer_and_many_samples(rng):
    """2 / k times the largest eigenvalue of the inputs' second moments, which the bound exceeds."""
    model = initialised(rng, nn.Linear(6, 2))
    x = torch.randn(50, 6, generator=rng.torch, dtype=torch.float64) + 1.0
    loss = nn.functional.mse_loss(model(x), torch.zeros(50, 2, dtype=torch.float64))
    extended = np.hstack([x.numpy(), np.ones((50, 1))])
    want = 2 / 2 * np.linalg.eigvalsh(extended.T @ extended / 50)[-1]
    found = largest_eigenvalue(loss, model.parameters(), tolerance=1e-9)
    assert found.value == pytest.approx(want, rel=1e-12)
    moment = x.square().mean().item()
    assert hessian_bound(model, input_moment=moment, loss_curvature=2 / 2) >= want


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


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_windows_that_contain_an_input(kernel, stride, dilation):
    """Counted by the transposed convolution of ones."""
    layer = nn.Conv1d(1, 1, kernel, stride=stride, dilation=dilation)
    ones = torch.ones(1, 1, 60)
    windows = nn.functional.conv_transpose1d(
        ones, torch.ones(1, 1, kernel), stride=stride, dilation=dilation
    )
    assert chain_of(layer, (1, 200))[1][0].overlap == windows.max().item()


def test_without_the_forward_pass(rng):
    """Nothing is run or changed; what does nothing in the chain makes no difference."""
    core = initialised(rng, nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)))
    core[0].register_forward_hook(lambda *_: pytest.fail("the model was run"))
    before = [p.detach().clone() for p in core.parameters()]
    state = torch.get_rng_state()
    bound = hessian_bound(core)
    padded = nn.Sequential(nn.Flatten(), nn.Identity(), core, nn.Dropout()).eval()
    assert hessian_bound(padded) == hessian_bound(core, (4,)) == bound
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, core.parameters(), strict=True))


def test_proportional_to_the_loss(rng):
    model = initialised(rng, mlp((4, 6, 3), nn.Tanh))
    bound = hessian_bound(model, loss_curvature=0.25, loss_slope=0.7)
    tripled = hessian_bound(model, loss_curvature=0.75, loss_slope=2.1)
    assert tripled == pytest.approx(3 * bound, rel=1e-12)
