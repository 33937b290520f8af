"""Decay during a warmup: lambda_post restores the shrinkage, not the training.

Decoupled decay multiplies the weights by 1 - eta_t lambda, so that it is weak during a warmup. It
can be left out of the warmup, and lambda_post from then on shrinks as much by the end:

    prod_{t >= T_w} (1 - eta_t lambda_post) = prod_t (1 - eta_t lambda)

Claims: without gradients, every weight of a trained network is in the end what it is with a
constant lambda, to 6 digits. And with gradients, the training's result is nearer to that of a
constant lambda than without a compensation. Digits, AdamW, a warmup of 150 of 400 steps, lambda =
1. Weights without gradients are in float64: in float32, the rounding of 400 updates alone is more.

Control: a warmup of 2 steps leaves nothing to compensate, and all three must agree.

What holds: the first claim does, the second is refuted. With the updates u_s,

    w_T = prod_t (1 - eta_t lambda_t) w_0 - sum_s u_s prod_{t > s} (1 - eta_t lambda_t)

and lambda_post equals the first product alone. It makes every later product smaller, so that all
that is learned shrinks more: the trained weights are smaller and the loss is higher, while leaving
the decay out of the warmup changes little. So lambda_post preserves how much of the initial or
pretrained weights is left, and a regularisation that fits lambda has to be tuned anew.
"""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

import lrfused
from lrfused import schedules

from .common import data, models, plotting
from .common.statistics import Statement, Values, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import batches, places, thinned, train

PROBLEM, SEEDS = 3096515, 12
SWAPPED = ("compensated", "left out")
STEPS, BATCH, PEAK, DECAY, LAST = 400, 64, 5e-3, 1.0, 40
WARMUPS = {"long": 150, "control": 2}
ARMS = ("constant", "compensated", "left out")


def recipe(params, peak, weight_decay, warmup_steps, total_steps):
    """No decay during the warmup, and lambda_post after it."""
    lr = schedules.warmup_cosine(peak, warmup_steps, total_steps)
    decay = schedules.compensated_decay(lr, weight_decay, warmup_steps, total_steps)
    return lrfused.AdamW(params, lr=lr, weight_decay=decay)


def optimizer(arm: str, params: list[nn.Parameter], warmup_steps: int) -> lrfused.AdamW:
    if arm == "compensated":
        return recipe(params, PEAK, DECAY, warmup_steps, STEPS)
    after = schedules.less_equal(warmup_steps, schedules.step)
    decay = DECAY if arm == "constant" else DECAY * after
    lr = schedules.warmup_cosine(PEAK, warmup_steps, STEPS)
    return lrfused.AdamW(params, lr=lr, weight_decay=decay)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in ARMS}
    for seed in seeds:
        row: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
        for name, warmup_steps in WARMUPS.items():
            trained: dict[str, Tensor] = {}
            for arm in ARMS:
                trained[arm], norms, loss = training(arm, warmup_steps, seed, device)
                row[arm] |= {f"norm, {name}": norms[-1], f"loss, {name}": loss}
                if name != "control":
                    curves[arm].append(thinned(norms))
            left = {arm: shrunk(arm, trained["constant"], warmup_steps) for arm in ARMS}
            for arm in ARMS:
                row[arm][f"left, {name}"] = left[arm].mean().item()
                row[arm][f"difference, {name}"] = furthest(left[arm], left["constant"])
        rows.append(row)
    return {"arms": collect(rows), "places": places(STEPS), "curves": curves}


def training(
    arm: str, warmup_steps: int, seed: int, device: torch.device
) -> tuple[Tensor, list[float], float]:
    """The trained weights, their norm after each step, and the loss of the last steps."""
    torch.manual_seed(seed)
    model = models.mlp([64, 64, 10]).to(device)
    x, y = data.digits().x.to(device), data.digits().y.to(device)
    order = batches(len(x), BATCH, STEPS, seed).to(device)
    norms: list[float] = []
    losses = train(
        optimizer(arm, list(model.parameters()), warmup_steps),
        lambda step: functional.cross_entropy(model(x[order[step]]), y[order[step]]),
        STEPS,
        after=lambda step: norms.append(weights_of(model).norm().item()),
    )
    return weights_of(model), norms, sum(losses[-LAST:]) / LAST


def weights_of(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters()).detach()


def shrunk(arm: str, weights: Tensor, warmup_steps: int) -> Tensor:
    """What share of each weight is left after a run without gradients."""
    start = weights.double()
    param = nn.Parameter(start.clone())
    param.grad = torch.zeros_like(param)
    opt = optimizer(arm, [param], warmup_steps)
    for _ in range(STEPS):
        opt.step()
    return param.detach() / start


def furthest(left: Tensor, reference: Tensor) -> float:
    """The largest relative difference of a weight."""
    return (left / reference - 1.0).abs().max().item()


def check(result: Result) -> list[Statement]:
    constant, compensated, left_out = measured(result, *ARMS)
    return [
        larger(
            "without gradients, equal weights",
            -np.log10(compensated["difference, long"]),
            than=6.0,
            unit="decimal digits",
        ),
        larger(
            "trained: lambda_post nearer than left out",
            apart(left_out, constant, "long") - apart(compensated, constant, "long"),
            than=0.01,
            unit="share of the norm",
        ),
        instead(
            "trained: smaller weights with lambda_post",
            1.0 - compensated["norm, long"] / constant["norm, long"],
            than=0.02,
            unit="share of the norm",
        ),
        instead(
            "trained: a higher loss with lambda_post",
            compensated["loss, long"] - constant["loss, long"],
            than=0.02,
            unit="nats",
        ),
        absent(
            "short warmup: left out, without gradients",
            left_out["difference, control"],
            within=0.005,
            unit="share of a weight",
        ),
        absent(
            "short warmup: lambda_post, trained",
            1.0 - compensated["norm, control"] / constant["norm, control"],
            within=0.01,
            unit="share of the norm",
        ),
    ]


def apart(arm: dict[str, Values], constant: dict[str, Values], name: str) -> Values:
    """How far the trained norm is from that with a constant decay."""
    return np.abs(arm[f"norm, {name}"] / constant[f"norm, {name}"] - 1.0)


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, norms) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], norms, arm, number)
    axes.axvline(WARMUPS["long"], color="gray", linestyle=":", label="end of warmup")
    plotting.labelled(axes, "training on digits", "step", "norm of the weights")


def norms_panel(axes: Axes, result: Result) -> None:
    measures = {"no gradients": "left, long", "trained": "norm, long", "control": "norm, control"}
    arms = measured(result, *ARMS)
    shares = {
        arm: [values[name] / arms[0][name] for name in measures.values()]
        for arm, values in zip(ARMS, arms, strict=True)
    }
    plotting.bars(axes, list(measures), shares)
    plotting.labelled(axes, "weights in the end", "run", "norm / norm with constant decay")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, norms_panel)
