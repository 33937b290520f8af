"""Lion: the paper's formula in float64, and the sign."""

import math

import pytest
import torch

import lrfused
from lrfused import schedules as S


def formula(p, m, g, lr, beta1, beta2, weight_decay):
    """Algorithm 2 of arXiv 2302.06675, number by number; decay first."""
    c = beta1 * m + (1.0 - beta1) * g
    sign = c if math.isnan(c) else float((c > 0.0) - (c < 0.0))
    return p - p * lr * weight_decay - lr * sign, beta2 * m + (1.0 - beta2) * g


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("maximize", [False, True])
def test_the_papers_formula(rng, backend, maximize):
    """Within a few roundings of float64 after 200 steps, with scheduled hyperparameters."""
    values = torch.randn(40, generator=rng.torch, dtype=torch.float64)
    weight = torch.nn.Parameter(values.clone())
    lr, betas = S.warmup_cosine(1e-2, 20, 200), (S.linear(0.8, 0.95, 200), 0.99)
    opt = lrfused.Lion(
        [weight], lr=lr, betas=betas, weight_decay=0.3, maximize=maximize, backend=backend
    )
    p, m = values.tolist(), [0.0] * 40
    for t in range(200):
        weight.grad = torch.randn(40, generator=rng.torch, dtype=torch.float64)
        g = ((-1.0 if maximize else 1.0) * weight.grad).tolist()
        moved = [
            formula(*three, lr(t), betas[0](t), betas[1], 0.3)
            for three in zip(p, m, g, strict=True)
        ]
        p, m = map(list, zip(*moved, strict=True))
        opt.step()
    for found, expected in ((weight, p), (opt.state[weight]["exp_avg"], m)):
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_sign_of_zero_and_of_nan(backend, dtype):
    gradient = torch.tensor([0.0, -0.0, float("nan"), 1e-30, -1e-30, float("inf")], dtype=dtype)
    weight = torch.nn.Parameter(torch.ones(6, dtype=dtype))
    weight.grad = gradient.clone()
    opt = lrfused.Lion([weight], lr=0.25, betas=(0.5, 0.5), backend=backend)
    opt.step()
    expected = torch.tensor([1.0, 1.0, float("nan"), 0.75, 1.25, 0.75], dtype=dtype)
    assert torch.equal(weight.detach().nan_to_num(9.0), expected.nan_to_num(9.0))


def test_it_is_an_optimizer_with_one_operand():
    weight = torch.nn.Parameter(torch.ones(2))
    opt = lrfused.Lion([weight])
    assert isinstance(opt, torch.optim.Optimizer)
    assert opt.defaults == {
        "lr": 1e-4,
        "betas": (0.9, 0.99),
        "weight_decay": 0.0,
        "maximize": False,
    }
    weight.grad = torch.ones(2)
    opt.step()
    assert opt.state[weight].keys() == {"exp_avg"}


@pytest.mark.parametrize("name", ["eps", "amsgrad", "bias_correction", "momentum"])
def test_what_it_has_not_is_refused(name):
    with pytest.raises(TypeError, match=name):
        lrfused.Lion([torch.nn.Parameter(torch.ones(1))], **{name: 0.5})
