"""Large batches: the linear rule speeds training up, and survives if the warmup grows as well.

For a batch of B = K B0 samples, the learning rate and the length of its warmup in updates are

    eta = K eta0  (linear)   or   sqrt(K) eta0  (square root)
    T_w = K T0    (linear)   or   T0 / K        (the same samples), at least 1

Claims, for digits, SGD with momentum, and weights that begin at 2.2 times He's, so that the
curvature is largest at the start and falls during a warmup: (1) after the same samples, a batch of
4 B0 has a lower loss with the linear rule than with eta0. (2) At 64 B0, the linear rule kills about
half of the networks, whose loss stays near that of chance, and harms others, if the warmup has the
same samples, which is 1 update; after one that grew with the batch, 128 updates, they live. (3) At
64 B0 and with the short warmup, networks live by the square-root rule.

Control: at 4 B0 the peak is below the limit from the start on, and the length of the warmup must
not matter much (it may cost some of what the linear rule gains). Losses are means over the last
quarter of a run, cut off at that of chance, log 10.
"""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

import lrfused
from lrfused import schedules

from .common import data, models, plotting
from .common.statistics import Statement, absent, larger
from .common.study import Result, collect, measured
from .common.training import batches, places, thinned, train

PROBLEM, SEEDS = 3150951, 20
NONE, ROOT = "no scaling", "square root"
SHORT, LONG = "linear, short warmup", "linear, long warmup"
SWAPPED = (SHORT, LONG)
BASE, LR, WARMUP_STEPS, GAIN = 8, 0.008, 2, 2.2
UPDATES = {4: 128, 16: 128, 64: 192}  # by K
BASE_UPDATES = 512  # see as many samples as those with 4 B0
RULES = {  # of the learning rate and of the warmup
    NONE: None,
    ROOT: ("sqrt", "samples"),
    SHORT: ("linear", "samples"),
    LONG: ("linear", "linear"),
}
CHANCE = math.log(10)  # the loss of a network that has died; larger ones count as this


def recipe(params, lr, warmup_steps, batch, base, rule, warmup_rule):
    """The peak and the length of the warmup that suit a batch, from those that suit the base."""
    peak = schedules.scale_lr(lr, batch, base, rule)
    steps = schedules.warmup_steps_for_batch(warmup_steps, batch, base, warmup_rule)
    return lrfused.SGD(params, lr=schedules.warmup_constant(peak, steps, start="1/n"), momentum=0.9)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in RULES}
    for seed in seeds:
        row = {"base": {"1": last_quarter(trained(SHORT, 1, BASE_UPDATES, seed, device))}}
        for arm in RULES:
            runs = {factor: trained(arm, factor, n, seed, device) for factor, n in UPDATES.items()}
            row[arm] = {str(factor): last_quarter(losses) for factor, losses in runs.items()}
            curves[arm].append(thinned(runs[64], 40))
        rows.append(row)
    return {"arms": collect(rows), "places": places(UPDATES[64], 40), "curves": curves}


def trained(arm: str, factor: int, updates: int, seed: int, device: torch.device) -> list[float]:
    """The loss of the batch before each update, at most that of chance."""
    samples, size = data.digits(), factor * BASE
    x, y = samples.x.to(device), samples.y.to(device)
    torch.manual_seed(seed)
    model = models.mlp([64, 48, 48, 10], gain=GAIN).to(device)
    scaled = (size, BASE, *RULES[arm]) if RULES[arm] else (BASE, BASE, "linear", "samples")
    opt = recipe(model.parameters(), LR, WARMUP_STEPS, *scaled)
    indices = batches(len(x), size, updates, seed).to(device)

    def loss(step: int) -> Tensor:
        return functional.cross_entropy(model(x[indices[step]]), y[indices[step]])

    return [min(value, CHANCE) for value in train(opt, loss, updates, ceiling=1e6)]


def last_quarter(losses: list[float]) -> float:
    last = losses[-len(losses) // 4 :]
    return float(f"{sum(last) / len(last):.6g}")


def check(result: Result) -> list[Statement]:
    none, root, short, long = measured(result, NONE, ROOT, SHORT, LONG)
    return [
        larger("4 B0: linear rule learns more", none["4"] - short["4"], than=0.03, unit="nats"),
        larger("64 B0: a long warmup survives", short["64"] - long["64"], than=0.5, unit="nats"),
        larger("64 B0: the square root survives", short["64"] - root["64"], than=0.5, unit="nats"),
        absent("4 B0: long or short warmup", short["4"] - long["4"], within=0.15, unit="nats"),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    (base,) = measured(result, "base")
    level = [[math.log10(loss)] * 2 for loss in base["1"]]
    plotting.curve(axes, [0, 1], level, "B0, as many samples", 4, linestyle="--")
    for place, arm in enumerate(RULES):
        (found,) = measured(result, arm)
        logarithms = [np.log10(found[str(factor)]) for factor in UPDATES]
        plotting.curve(axes, [1, 2, 3], np.transpose(logarithms), arm, place, marker="o")
    axes.axhline(math.log10(CHANCE), color="black", linestyle=":", label="chance")
    axes.set_xticks(range(4), [str(factor * BASE) for factor in (1, *UPDATES)])
    plotting.labelled(axes, "loss at the end", "samples in a batch", "log10 of the loss in nats")


def losses_panel(axes: Axes, result: Result) -> None:
    for place, (arm, losses) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], losses, arm, place)
    axes.set_ylim(bottom=0.0)
    plotting.labelled(
        axes, f"batches of {64 * BASE}", "update", "loss of the batch (nats)", legend=False
    )


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, losses_panel)
