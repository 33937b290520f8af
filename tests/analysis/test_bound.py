"""The estimate of a Hessian at initialisation against measured eigenvalues."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lrfused.analysis import hessian_bound, largest_eigenvalue
from lrfused.analysis.chain import chain_of

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
