"""Decay coupled to the learning rate: a help where lambda is too weak, not where it is right.

A step shrinks the weights by eta_t lambda, so that an annealed eta_t takes the decay with it.
Coupled to eta_t, lambda_t grows as eta_t falls, and the shrinkage of a step is the same throughout:

    eta_t lambda_t = c,     lambda_t = c / eta_t

Claims: a coupled decay has the lower test loss in the end, with the same total shrinkage where
lambda is too weak to prevent overfitting, and also with the best lambda for each of the two. The
task is to learn 300 digits, half of them with a random label, with AdamW and a cosine to 5% of the
peak. The best lambdas were searched on other seeds: 0.6 constant, and a mean of 0.2 coupled.

Control: with all digits and their right labels nothing overfits, and a weak decay of either kind
must lead to the same test loss.

What holds: the first claim does, the second is refuted, as eta_t multiplies the gradient, too.
Where the two balance, eta_t cancels,

    eta_t grad L(w) = -eta_t lambda_t w

so that a constant lambda does not lose its strength: it is one objective for the whole run. The
coupled lambda_t grows to 20 times its first value and shrinks what was learned. That helps only as
a stronger decay would, and a constant lambda of the right size helps more.
"""

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

PROBLEM, SEEDS = 3141427, 12
SWAPPED = ("constant", "coupled")
STEPS, BATCH, PEAK, END, EVERY = 600, 50, 2e-2, 1e-3, 20
FEW, NOISE = 300, 0.5  # samples, and the share of random labels
ARMS = ("constant", "coupled")
DECAYS = {  # the lambda of each arm; with "coupled" its mean, weighted by eta_t
    "too weak": {"constant": 0.1, "coupled": 0.1},
    "best": {"constant": 0.6, "coupled": 0.2},
    "control": {"constant": 0.1, "coupled": 0.1},
}


def recipe(params, peak, end, total_steps, mean_decay):
    """lr * weight_decay is the same at every step."""
    lr = schedules.cosine(peak, end, total_steps)
    shrinkage = mean_decay * (peak + end) / 2
    return lrfused.AdamW(params, lr=lr, weight_decay=shrinkage / lr)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {name: {arm: [] for arm in ARMS} for name in DECAYS if name != "control"}
    for seed in seeds:
        row: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
        for name, decays in DECAYS.items():
            for arm, decay in decays.items():
                losses = test_losses(arm, decay, name == "control", seed, device)
                row[arm][name] = losses[-1]
                if name != "control":
                    curves[name][arm].append(losses)
        rows.append(row)
    places = list(range(EVERY, STEPS + 1, EVERY))
    return {"arms": collect(rows), "places": places, "curves": curves}


def test_losses(
    arm: str, decay: float, clean: bool, seed: int, device: torch.device
) -> list[float]:
    """The test loss after every EVERY steps of a training."""
    x, y = (values.to(device) for values in samples(clean, seed))
    test_x, test_y = data.digits().test_x.to(device), data.digits().test_y.to(device)
    torch.manual_seed(seed)
    model = models.mlp([64, 64, 10]).to(device)
    order = batches(len(x), BATCH, STEPS, seed).to(device)
    losses, after = every(EVERY, lambda: functional.cross_entropy(model(test_x), test_y).item())
    train(
        optimizer(arm, decay, model),
        lambda step: functional.cross_entropy(model(x[order[step]]), y[order[step]]),
        STEPS,
        after=after,
    )
    return losses


def samples(clean: bool, seed: int) -> tuple[Tensor, Tensor]:
    """All digits, or a few of which some have a random label."""
    if clean:
        return data.digits().x, data.digits().y
    x, y, _ = data.mislabelled(FEW, NOISE, stream(seed, "labels"))
    return x, y


def optimizer(arm: str, decay: float, model: torch.nn.Module) -> lrfused.AdamW:
    if arm == "coupled":
        return recipe(model.parameters(), PEAK, END, STEPS, decay)
    lr = schedules.cosine(PEAK, END, STEPS)
    return lrfused.AdamW(model.parameters(), lr=lr, weight_decay=decay)


def check(result: Result) -> list[Statement]:
    constant, coupled = measured(result, *ARMS)
    saved = {name: constant[name] - coupled[name] for name in DECAYS}
    return [
        larger("too weak: lower with coupled", saved["too weak"], than=0.05, unit="nats"),
        larger("best of each: lower with coupled", saved["best"], than=0.02, unit="nats"),
        instead("best of each: lower with constant", -saved["best"], than=0.02, unit="nats"),
        absent("all digits, right labels", saved["control"], within=0.025, unit="nats"),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, losses) in enumerate(result["curves"]["too weak"].items()):
        plotting.curve(axes, result["places"], losses, arm, number)
    axes.set_ylim(0.8, 1.7)
    plotting.labelled(axes, "a lambda of 0.1, too weak", "step", "test loss (nats)")


def saved_panel(axes: Axes, result: Result) -> None:
    curves = {f"lambda: {name}": by_arm for name, by_arm in result["curves"].items()}
    plotting.differences(axes, result["places"], curves, ARMS)
    plotting.labelled(
        axes, "by how much coupled is better", "step", "test loss, constant - coupled (nats)"
    )


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, saved_panel)
