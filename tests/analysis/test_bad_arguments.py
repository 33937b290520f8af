"""Wrong arguments of the analysis are refused by the argument's name."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lrfused import analysis
from lrfused import schedules as S

INF, NAN = math.inf, math.nan
X = torch.ones(3, requires_grad=True)


class Custom(torch.autograd.Function):
    """Has one derivative only."""

    @staticmethod
    def forward(ctx, x):
        return x.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad.expand(3)


def square():
    return X.square().sum()


def fused_attention():
    q = X.expand(1, 1, 4, 3)
    return nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).square().sum()


def backwards():
    loss = X.clone().square().sum()
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("loss", "params", "error", "message"),
    [
        (square, [], ValueError, "params: must not be empty"),
        (square, 3.0, TypeError, "params: must be tensors, got float"),
        (square, [X, "x"], TypeError, r"params\[1\]: must be a torch.Tensor, got str"),
        (square, [X, torch.ones(2, dtype=torch.int64)], TypeError, r"params\[1\]: must be real"),
        (square, [torch.ones(2, dtype=torch.complex64)], TypeError, r"params\[0\]: must be real"),
        (square, [X, torch.ones(2)], ValueError, r"params\[1\]: must require grad"),
        (square, [X, X], ValueError, r"params\[1\]: must differ from all others, got params\[0\]"),
        (square, [torch.empty(0, requires_grad=True)], ValueError, "params: must contain at least"),
        (lambda: 1.0, [X], TypeError, "loss: must be a tensor or a function .* got float"),
        (5, [X], TypeError, "loss: must be a tensor or a function .* got int"),
        (lambda: X, [X], ValueError, r"loss: must be a real scalar, got shape \(3,\)"),
        (lambda: (X * 1j).sum(), [X], ValueError, "loss: must be a real scalar, .*complex64"),
        (lambda: X.detach().sum(), [X], ValueError, "loss: must require grad"),
        (lambda: X.sum() / 0, [X], ValueError, "loss: must be finite, got inf"),
        (lambda: (X - 1).pow(1.5).sum(), [X], ValueError, "loss: must have finite second"),
        (lambda: Custom.apply(X).square(), [X], RuntimeError, "loss: .* once_differentiable"),
        (fused_attention, [X], RuntimeError, "loss: must be twice .* not implemented"),
        (backwards, [X], RuntimeError, "loss: must be twice differ.* must not call backward"),
    ],
)
def test_losses_and_parameters(loss, params, error, message):
    with pytest.raises(error, match=f"^{message}"):
        analysis.largest_eigenvalue(loss, params)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tolerance": 0.0}, ValueError),
        ({"tolerance": NAN}, ValueError),
        ({"tolerance": "1"}, TypeError),
        ({"max_iterations": 0}, ValueError),
        ({"max_iterations": 2.0}, TypeError),
        ({"basis_size": 1}, ValueError),
        ({"basis_size": True}, TypeError),
        ({"generator": 3}, TypeError),
    ],
)
def test_options_of_the_eigenvalue(options, error):
    calls = []
    with pytest.raises(error, match=f"^{next(iter(options))}: must be"):
        analysis.largest_eigenvalue(lambda: calls.append(1), [X], **options)
    assert not calls  # refused before the loss is evaluated


DYNAMICS = {"schedule": 0.1, "momentum": 0.9, "curvature": 1.0, "steps": range(4)}
LATE = S.step - 2.0  # negative at steps 0 and 1


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"schedule": -0.1}, ValueError, "schedule: must be finite and >= 0, got -0.1 at step 0"),
        ({"schedule": NAN}, ValueError, "schedule: must be finite"),
        ({"schedule": "0.1"}, TypeError, "schedule: must be a number"),
        ({"schedule": -LATE}, ValueError, "schedule: must be .*, got -1.0 at step 3"),
        ({"schedule": 1 / S.step}, ValueError, "schedule: must be .*, got inf at step 0"),
        ({"momentum": 1.0}, ValueError, r"momentum: must be in \[0, 1\), got 1.0 at step 0"),
        ({"momentum": -0.1}, ValueError, "momentum: must be in"),
        ({"momentum": INF}, ValueError, "momentum: must be finite"),
        ({"momentum": None}, TypeError, "momentum: must be a number"),
        ({"momentum": S.step / 2}, ValueError, "momentum: .* got 1.0 at step 2"),
        ({"momentum": S.step / S.step}, ValueError, "momentum: .* got nan at step 0"),
        ({"curvature": 0.0}, ValueError, "curvature: must be greater than 0"),
        ({"curvature": INF}, ValueError, "curvature: must be finite"),
        ({"curvature": [1.0]}, TypeError, "curvature: must be a number"),
        ({"schedule": 1e200, "curvature": 1e200}, ValueError, r"schedule \* curvature: must be"),
        ({"steps": [0.5]}, TypeError, "steps: must be integers"),
        ({"steps": [3, -1]}, ValueError, "steps: must lie in"),
    ],
)
def test_momentum_dynamics(changed, error, message):
    with pytest.raises(error, match=f"^{message}"):
        analysis.momentum_dynamics(**{**DYNAMICS, **changed})


@pytest.mark.parametrize(
    ("curvature", "momentum", "error", "message"),
    [
        (0.0, 0.0, ValueError, "curvature: must be greater"),
        (-1.0, 0.0, ValueError, "curvature: must be greater"),
        (NAN, 0.0, ValueError, "curvature: must be finite"),
        (1e-320, 0.0, ValueError, "curvature: must be so large that .* got 1e-320"),
        (True, 0.0, TypeError, "curvature: must be a number"),
        (1.0, 1.0, ValueError, r"momentum: must be in \[0, 1\), got 1.0"),
        (1.0, -0.5, ValueError, r"momentum: must be in \[0, 1\), got -0.5"),
        (1.0, NAN, ValueError, "momentum: must be finite"),
        (1.0, S.constant(0.5), TypeError, "momentum: must be a number"),
    ],
)
def test_stable_lr(curvature, momentum, error, message):
    with pytest.raises(error, match=f"^{message}"):
        analysis.stable_lr(curvature, momentum)


def poisoned(value):
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[1, 1] = value
    return layer


SHARED = nn.Linear(3, 3)
CIRCULAR = nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular")


@pytest.mark.parametrize(
    ("model", "shape", "error", "message"),
    [
        ("model", None, TypeError, "model: must be a torch.nn.Module, got str"),
        (nn.Sequential(), (3,), ValueError, "model: must contain a Linear"),
        (nn.Sequential(), None, ValueError, "input_shape: must be given"),
        (nn.Conv1d(2, 2, 3), None, ValueError, "input_shape: must be given"),
        (nn.Sequential(nn.Tanh(), nn.Linear(3, 3)), None, ValueError, r"model\[0\]: an activation"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Sequential(nn.ReLU())),
            None,
            ValueError,
            r"model\[2\]\[0\]: an activation must follow",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
            None,
            TypeError,
            r"model\[1\]: must be one of .*, got BatchNorm1d",
        ),
        (nn.Bilinear(3, 3, 2), None, TypeError, "model: must be one of .*, got Bilinear"),
        (
            nn.Sequential(nn.Conv2d(3, 3, 1), nn.MaxPool2d(2)),
            None,
            TypeError,
            r"model\[1\]: must be one of .*, got MaxPool2d",
        ),
        (nn.Sequential(nn.Linear(3, 3), nn.Dropout()), None, TypeError, r"model\[1\]: must be one"),
        (nn.LazyLinear(3), (3,), TypeError, "model: must be one of .*, got LazyLinear"),
        (nn.Sequential(SHARED, nn.ReLU(), SHARED), None, ValueError, r"model\[2\]: .* is model\[0"),
        (nn.Sequential(SHARED, nn.Linear(4, 2)), None, ValueError, r"model\[1\]: its input must"),
        (nn.Linear(3, 2), (4,), ValueError, r"model: its input must end in 3, got \(4,\)"),
        (nn.Linear(3, 2), (), ValueError, "model: its input must end in 3"),
        (nn.Linear(3, 2), (-3,), ValueError, r"input_shape\[0\]: must be at least 1"),
        (nn.Linear(3, 2), "3", TypeError, r"input_shape\[0\]: must be an integer"),
        (nn.Linear(3, 2), (3.0,), TypeError, r"input_shape\[0\]: must be an integer"),
        (nn.Conv2d(2, 2, 3), (2, 9), ValueError, "model: its input must be 2 channels and 2 dim"),
        (nn.Conv2d(2, 2, 3), (3, 9, 9), ValueError, "model: its input must be 2 channels"),
        (nn.Conv2d(2, 2, 3), (2, 2, 9), ValueError, "model: its input must be as large as its k"),
        (CIRCULAR, (2, 9), ValueError, "model: padding_mode must be 'zeros', got 'circular'"),
        (poisoned(NAN), None, ValueError, "mean square of model.weight: must be finite"),
        (poisoned(-INF), None, ValueError, "mean square of model.weight: must be finite"),
        (nn.Linear(3, 2, device="meta"), None, ValueError, "model.weight: must have values"),
    ],
)
def test_models_of_the_bound(model, shape, error, message):
    with pytest.raises(error, match=f"^{message}"):
        analysis.hessian_bound(model, shape)


def test_a_bound_beyond_float64_is_refused():
    model = nn.Sequential(*(nn.Linear(2, 2, dtype=torch.float64) for _ in range(3)))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1e150)
    with pytest.raises(ValueError, match=r"^model: its bound must be finite"):
        analysis.hessian_bound(model)


@pytest.mark.parametrize("name", ["input_moment", "loss_curvature", "loss_slope"])
@pytest.mark.parametrize(
    ("bad", "error"),
    [(-1.0, ValueError), (NAN, ValueError), (INF, ValueError), (None, TypeError)],
)
def test_numbers_of_the_bound(name, bad, error):
    with pytest.raises(error, match=f"^{name}: must"):
        analysis.hessian_bound(nn.Linear(3, 2), **{name: bad})


def test_numbers_may_be_of_numpy():
    assert analysis.stable_lr(np.float64(4.0), np.float32(0.5)) == 0.75
