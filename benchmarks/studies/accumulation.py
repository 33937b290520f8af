"""Accumulation: average the micro-batches, and stop the linear rule at the stability limit.

An update sees K micro-batches. Their gradients add up, and the target of the warmup is the smaller
of what the linear rule asks for and what the largest curvature at the start allows:

    g = (g_1 + ... + g_K) / K              accumulation_steps=K; without it, g is K times as long
    eta = min(K eta0, 2 (1 + b) / lambda_max)

Claims, for digits, SGD with momentum b, K = 32 and a K eta0 of several times the limit, with the
same warmup in all arms: (1) with the sum instead of the mean, the same eta acts as K eta, and the
networks die: their loss stays that of chance. (2) By the linear rule alone they learn little.
(3) The limit is not just safe: with it, networks learn more in the same updates than with eta0.

Control: AdamW divides by the size of the gradients, so that sum and mean must end the same. Losses
are means over the last quarter of a run, cut off at that of chance, log 10.
"""

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn import functional

import lrfused
from lrfused import analysis, schedules

from .common import data, models, plotting
from .common.statistics import Statement, absent, larger
from .common.study import Result, collect, measured
from .common.training import batches, places, thinned

PROBLEM, SEEDS = 3143294, 12
SMALLER, SUM = "smaller, mean", "smaller, sum"
LINEAR, UNSCALED = "linear, mean", "eta0, mean"
ADAM_MEAN, ADAM_SUM = "AdamW, mean", "AdamW, sum"
SWAPPED = (SMALLER, SUM)
COUNT, MICRO, UPDATES, WARMUP_STEPS = 32, 4, 40, 16
LR, MOMENTUM, GAIN, ADAM_LR = 0.02, 0.9, 1.5, 3e-3
CHANCE = math.log(10)  # the loss of a network that has died; larger ones count as this
BINS = 32  # of the curves


def recipe(params, linear, stable, warmup_steps, count):
    """linear: scale_lr(lr, batch=count, base=1); stable: analysis.stable_lr(curvature, momentum).
    Each step comes after ``count`` calls of loss.backward(), and averages their sum."""
    lr = schedules.warmup_constant(min(linear, stable), warmup_steps, start="1/n")
    return lrfused.SGD(params, lr=lr, momentum=0.9, accumulation_steps=count, zero_grads=True)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves, limits = [], {arm: [] for arm in (SMALLER, SUM, LINEAR, UNSCALED)}, []
    for seed in seeds:
        row, stable = {}, limit(seed, device)
        for arm in (*curves, ADAM_MEAN, ADAM_SUM):
            losses = trained(arm, stable, seed, device)
            row[arm] = {"loss": thinned(losses, 4)[-1]}
            if arm in curves:
                curves[arm].append(thinned(losses, BINS))
        rows.append(row)
        limits.append(float(f"{stable:.6g}"))
    return {
        "arms": collect(rows),
        "places": places(UPDATES, BINS),
        "curves": curves,
        "limits": limits,
    }


def limit(seed: int, device: torch.device) -> float:
    """The learning rate that the curvature of the untrained network allows."""
    model, x, y = network(seed).to(device), *training_data(device)
    found = analysis.largest_eigenvalue(
        lambda: functional.cross_entropy(model(x), y), model.parameters(), tolerance=0.01
    )
    return analysis.stable_lr(found.value, MOMENTUM)


def optimizer(arm: str, params: list[torch.nn.Parameter], stable: float) -> lrfused.FusedOptimizer:
    count = 1 if arm in (SUM, ADAM_SUM) else COUNT
    if arm in (ADAM_MEAN, ADAM_SUM):
        lr = schedules.warmup_constant(ADAM_LR, WARMUP_STEPS, start="1/n")
        return lrfused.AdamW(params, lr=lr, accumulation_steps=count, zero_grads=True)
    linear = LR if arm == UNSCALED else schedules.scale_lr(LR, batch=COUNT, base=1)
    return recipe(params, linear, math.inf if arm == LINEAR else stable, WARMUP_STEPS, count)


def trained(arm: str, stable: float, seed: int, device: torch.device) -> list[float]:
    """The mean loss of the micro-batches of each update, at most that of chance."""
    model, x, y = network(seed).to(device), *training_data(device)
    opt = optimizer(arm, list(model.parameters()), stable)
    indices = batches(len(x), COUNT * MICRO, UPDATES, seed).to(device)
    losses = []
    for update in range(UPDATES):
        total = 0.0
        for rows in indices[update].split(MICRO):
            loss = functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            total += loss.detach()
        opt.step()
        mean = float(total) / COUNT
        losses.append(mean if mean < CHANCE else CHANCE)
    return losses


def training_data(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    samples = data.digits()
    return samples.x.to(device), samples.y.to(device)


def network(seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return models.mlp([64, 48, 48, 10], gain=GAIN)


def check(result: Result) -> list[Statement]:
    loss = {arm: measured(result, arm)[0]["loss"] for arm in result["arms"]}
    smaller, adam = loss[SMALLER], loss[ADAM_SUM] - loss[ADAM_MEAN]
    return [
        larger("dies by the sum", loss[SUM] - smaller, than=0.3, unit="nats"),
        larger("learns less by the linear rule", loss[LINEAR] - smaller, than=0.3, unit="nats"),
        larger("learns less with eta0", loss[UNSCALED] - smaller, than=0.03, unit="nats"),
        absent("sum or mean in AdamW", adam, within=0.01, unit="nats"),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, losses) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], losses, arm, number)
    axes.set_ylim(0.0, 4.2)  # room for the legend
    plotting.labelled(axes, f"{COUNT} micro-batches of {MICRO}", "update", "loss (nats)")


def losses_panel(axes: Axes, result: Result) -> None:
    found = [result["arms"][arm]["loss"] for arm in result["arms"]]
    labels = [arm.replace(", ", "\n") for arm in result["arms"]]
    plotting.bars(axes, labels, {"loss": found})
    plotting.labelled(
        axes, "at the end of training", "learning rate, gradient", "loss (nats)", legend=False
    )


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, losses_panel)
