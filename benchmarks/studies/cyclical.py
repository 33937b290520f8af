"""Cyclical learning rates: they leave poor valleys that are met late, where a decay stays in them.

Walkers slide down a long slope to the native valley, as in protein folding; on their way are poor
valleys, narrow and deep. Gradients are noisy. The energy, and the two learning rates:

    E(x) = F sqrt(x^2 + a^2) - sum_k D_k exp(-(x - c_k)^2 / 2 w^2)
    decay:   from 1 to 0.05 in a straight line
    cycles:  8 triangles between 0.05 and 1

Both have the same largest, smallest and mean rate. A rate far above 2 w^2 / D_k, the limit of
stability in valley k, throws a walker out of it; the native valley is wide enough for every rate.

Claim: a larger share of walkers has reached the native valley in the end. They start anywhere on
the slope, so that many come to a valley when the decay's rate is too low to leave it; the next
triangle throws them out.

Control: walkers that start in the last poor valley meet it while the decay's rate is at its peak.
The decay is as good at this, and the effect must be absent: cycles pay where it is not known when
a valley is met.
"""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import lrfused
from lrfused import schedules

from .common import plotting
from .common.statistics import Statement, absent, larger
from .common.study import Result, collect, measured
from .common.training import POINTS, places, train

PROBLEM, SEEDS = 2373403, 16
SWAPPED = ("decay", "cycles")
STEPS, CYCLES, LOW, HIGH = 800, 8, 0.05, 1.0
WALKERS, LENGTH = 400, 210.0  # of the slope; at the mean rate and without valleys, they walk 250
SLOPE, NATIVE_WIDTH, NOISE = 0.6, 2.0, 0.5
VALLEYS, WIDTH = 3, 1.0
ARMS = {"decay": 0, "cycles": CYCLES}


def recipe(params, low, high, total_steps, cycles):
    """Triangles, or with 0 cycles a straight line."""
    lr = schedules.linear(high, low, total_steps)
    if cycles:
        lr = schedules.triangular(low, high, up_steps=total_steps // (2 * cycles))
    return lrfused.SGD(params, lr=lr)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in ARMS}
    for seed in seeds:
        row = {}
        for arm, cycles in ARMS.items():
            shares = walk(cycles, seed, device)
            row[arm] = {"slope": shares[-1][0], "control": shares[-1][1]}
            curves[arm].append([share for share, _ in shares])
        rows.append(row)
    return {"arms": collect(rows), "places": places(STEPS), "curves": curves}


def walk(cycles: int, seed: int, device: torch.device) -> list[list[float]]:
    """The shares in the native valley over time: from the slope, and from the last poor valley."""
    generator = torch.Generator().manual_seed(seed)
    thirds = (torch.arange(VALLEYS) + torch.rand(VALLEYS, generator=generator)) / VALLEYS
    centres = 20.0 + 120.0 * thirds
    depths = 2 * WIDTH**2 / (0.25 + 0.1 * torch.rand(VALLEYS, generator=generator))
    slope = LENGTH * torch.rand(WALKERS, generator=generator)
    start = torch.stack([slope, centres[0].expand(WALKERS)])
    noise = (NOISE * torch.randn(STEPS, *start.shape, generator=generator)).to(device)
    x, centres, depths = torch.nn.Parameter(start.to(device)), centres.to(device), depths.to(device)
    opt, shares = recipe([x], LOW, HIGH, STEPS, cycles), []

    def loss(step: int) -> Tensor:
        funnel = SLOPE * (x * x + NATIVE_WIDTH**2).sqrt()
        valleys = depths * torch.exp(-0.5 * ((x[..., None] - centres) / WIDTH) ** 2)
        return (funnel + noise[step] * x).sum() - valleys.sum()

    def watch(step: int) -> None:
        if (step + 1) * POINTS // STEPS > step * POINTS // STEPS:
            shares.append((x.detach().abs() < 3 * NATIVE_WIDTH).float().mean(1).tolist())

    train(opt, loss, STEPS, after=watch)
    return shares


def check(result: Result) -> list[Statement]:
    decay, cycles = measured(result, "decay", "cycles")
    gain = {name: cycles[name] - decay[name] for name in decay}
    unit = "share of walkers"
    return [
        larger("more reach the native valley", gain["slope"], than=0.05, unit=unit),
        absent("as many from the last poor valley", gain["control"], within=0.03, unit=unit),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, shares) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], shares, arm, number)
    title = "walkers in the native valley, from the slope"
    plotting.labelled(axes, title, "step", "share of walkers")


def shares_panel(axes: Axes, result: Result) -> None:
    names = {"slope": "anywhere on the slope", "control": "in the last valley (control)"}
    shares = {arm: [result["arms"][arm][name] for name in names] for arm in ARMS}
    plotting.bars(axes, list(names.values()), shares)
    plotting.labelled(axes, "and in the end", "where they start", "share of walkers")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, shares_panel)
