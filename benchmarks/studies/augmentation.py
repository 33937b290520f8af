"""Augmentation coupled to the learning rate: a constant strength is better.

The augmentation is noise on the pixels, whose variance alpha_t is its strength. Coupled to eta_t,
it grows as eta_t falls, so that the effect of a step is meant to stay the same:

    eta_t alpha_t = c,     alpha_t = c / eta_t

Claims: with the same mean of alpha_t, and also with the best mean for each, the coupled strength
has the lower test loss over the last 100 steps. The task is to learn 300 digits, half of them with
a random label, with AdamW and a cosine to 10% of the peak. The best means were searched on other
seeds: 0.06 constant and 0.03 coupled. The data code reads the Schedule at `opt.known_step`.

Control: if eta_t falls by a tenth only, the two strengths are almost the same, and so must be the
losses.

What holds: both claims are refuted. To second order noise adds a penalty to the loss,

    E loss(x + noise) = L(w) + alpha_t / 2 R(w),     R(w) = trace of the Hessian in x

and eta_t multiplies the gradients of both: what they balance to depends on alpha_t alone. A
constant strength is one objective for the whole run, and does not weaken as eta_t falls. The
coupled one is weak while the steps are large and wrong labels are learned; at the end it is strong,
when the steps are too small to unlearn them and the inputs are further from those of the test.
"""

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

import lrfused
from lrfused import schedules

from .common import data, models, plotting
from .common.statistics import Statement, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import batches, every, stream, train

PROBLEM, SEEDS = 3142969, 12
SWAPPED = ("constant", "coupled")
STEPS, BATCH, PEAK, EVERY, LAST = 600, 50, 1e-2, 20, 5
FEW, NOISE = 300, 0.5  # samples, and the share of random labels
ARMS = ("constant", "coupled")
MEANS = {  # of alpha_t in each arm
    "same mean": {"constant": 0.06, "coupled": 0.06},
    "best of each": {"constant": 0.06, "coupled": 0.03},
    "control": {"constant": 0.06, "coupled": 0.06},
}
ENDS = {"same mean": 0.1 * PEAK, "best of each": 0.1 * PEAK, "control": 0.9 * PEAK}
MARGINS = {"same mean": 0.05, "best of each": 0.02}


def recipe(params, peak, end, total_steps, mean):
    """lr * strength is the same at every step; 1 / lr has a mean of 1 / (peak * end)**0.5."""
    lr = schedules.cosine(peak, end, total_steps)
    strength = mean * (peak * end) ** 0.5 / lr
    return lrfused.AdamW(params, lr=lr, weight_decay=0.0), strength


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {name: {arm: [] for arm in ARMS} for name in MEANS}
    for seed in seeds:
        row: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
        for name, means in MEANS.items():
            for arm, mean in means.items():
                losses = test_losses(arm, mean, ENDS[name], seed, device)
                row[arm][name] = sum(losses[-LAST:]) / LAST
                curves[name][arm].append(losses)
        rows.append(row)
    places = list(range(EVERY, STEPS + 1, EVERY))
    return {"arms": collect(rows), "places": places, "curves": curves}


def test_losses(arm: str, mean: float, end: float, seed: int, device: torch.device) -> list[float]:
    """The test loss after every EVERY steps of a training."""
    generator = stream(seed, "labels and noise")
    x, y, _ = data.mislabelled(FEW, NOISE, generator)
    test_x, test_y = data.digits().test_x.to(device), data.digits().test_y.to(device)
    torch.manual_seed(seed)
    model = models.mlp([64, 64, 10]).to(device)
    opt, strength = recipe(model.parameters(), PEAK, end, STEPS, mean)
    if arm == "constant":
        strength = schedules.constant(mean)
    order = batches(len(x), BATCH, STEPS, seed)
    losses, after = every(EVERY, lambda: functional.cross_entropy(model(test_x), test_y).item())

    def loss(step: int) -> Tensor:
        chosen = x[order[step]]
        noise = math.sqrt(strength(opt.known_step)) * torch.randn(chosen.shape, generator=generator)
        return functional.cross_entropy(
            model((chosen + noise).to(device)), y[order[step]].to(device)
        )

    train(opt, loss, STEPS, after=after)
    return losses


def check(result: Result) -> list[Statement]:
    constant, coupled = measured(result, *ARMS)
    saved = {name: constant[name] - coupled[name] for name in MEANS}
    statements = []
    for name, margin in MARGINS.items():
        statements += [
            larger(f"{name}: lower with coupled", saved[name], than=margin, unit="nats"),
            instead(f"{name}: lower with constant", -saved[name], than=margin, unit="nats"),
        ]
    control = absent("lr falls by a tenth only", saved["control"], within=0.04, unit="nats")
    return [*statements, control]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, losses) in enumerate(result["curves"]["same mean"].items()):
        plotting.curve(axes, result["places"], losses, arm, number)
    axes.set_ylim(0.7, 1.3)
    plotting.labelled(axes, "mean of alpha = 0.06", "step", "test loss (nats)")


def saved_panel(axes: Axes, result: Result) -> None:
    plotting.differences(axes, result["places"], result["curves"], ARMS)
    plotting.labelled(
        axes, "by how much coupled is better", "step", "test loss, constant - coupled (nats)"
    )


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, saved_panel)
