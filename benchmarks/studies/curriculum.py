"""Curriculum: difficulty in step with the learning rate helps where that falls, not where it grows.

Difficulty is the size sigma of the gradient's noise. It follows the learning rate eta of T steps,
shifted in a circle by s, so that every shift has the same noise, at another time:

    sigma_t = eta((t - s) mod T) / max eta,     s = -3T/8, ..., 0, ..., T/2
    final error = what is left of the start + sum_t w_t sigma_t^2
    w_t = eta_t^2 prod_{u > t} (1 - eta_u h)^2  at a curvature of h

on a quadratic (the difficulty of the chapter is sigma^2, in general). There are two learning rates:
one rises and falls (a warmup over T/4, then a cosine to a tenth of the peak), the other one only
grows.

Claim: where the learning rate rises and falls, (1) the final error is lower in step (s = 0) than
with the opposite shift (s = T/2), and (2) over all shifts it is lower the higher the correlation of
sigma and eta; (3) where both only grow, it is lower in step, too.

Control: after T more steps of constant noise and learning rate the past is forgotten, and the shift
must not matter.

What holds: (1) and (2), but (3) is reversed. w_t says why: noise that is followed by many steps is
forgotten, so that the error depends on the noise near the end. In step with a rate that falls, it
is low there; in step with one that only grows, it is highest there. The correlation goes with this
but is not the cause: where the rate only grows, T/8 later and earlier have the same one, and errors
far apart.
"""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import lrfused
from lrfused import schedules

from .common import plotting
from .common.statistics import Statement, Values, absent, instead, intervals, larger
from .common.study import Result, collect, measured
from .common.training import train

PROBLEM, SEEDS = 3143302, 12
SWAPPED = ("in step", "opposite")
STEPS, PEAK, REPLICAS = 200, 0.5, 32
CURVATURES = torch.logspace(-1, 0, 16)
SHIFTS = {  # in steps, from early to late
    "3/8 earlier": -3 * STEPS // 8,
    "1/4 earlier": -STEPS // 4,
    "1/8 earlier": -STEPS // 8,
    "in step": 0,
    "1/8 later": STEPS // 8,
    "1/4 later": STEPS // 4,
    "3/8 later": 3 * STEPS // 8,
    "opposite": STEPS // 2,
}
WARMUPS = {"rises and falls": STEPS // 4, "only grows": STEPS - 1}


def recipe(peak, warmup_steps, total_steps, shift):
    """The optimizer gets lr; the code that makes the data reads difficulty(opt.known_step)."""
    lr = schedules.warmup_cosine(peak, warmup_steps, total_steps, end=peak / 10)
    shifted = (lr / peak).at((schedules.step + total_steps - shift) % total_steps)
    return lr, schedules.join([shifted, schedules.constant(0.5)], [total_steps])


def run(seeds: list[int], device: torch.device) -> Result:
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(2 * STEPS, REPLICAS, len(CURVATURES), generator=generator)
        noise = (noise * CURVATURES.sqrt()).to(device)
        row = {}
        for arm, shift in SHIFTS.items():
            final, later = errors(noise, WARMUPS["rises and falls"], shift)
            (growing,) = errors(noise[:STEPS], WARMUPS["only grows"], shift)
            row[arm] = {"rises and falls": final, "only grows": growing, "forgotten": later}
        rows.append(row)
    return {"arms": collect(rows), "correlations": {name: correlations(name) for name in WARMUPS}}


def errors(noise: Tensor, warmup_steps: int, shift: int) -> list[float]:
    """log10 of the error after T steps, and after as many more as there is noise for."""
    x, curvatures = torch.nn.Parameter(torch.ones_like(noise[0])), CURVATURES.to(noise.device)
    lr, difficulty = recipe(PEAK, warmup_steps, STEPS, shift)
    opt, found = lrfused.SGD([x], lr=lr), []

    def loss(step: int) -> Tensor:
        sigma = difficulty(opt.known_step)
        return (0.5 * curvatures * x * x + sigma * noise[step] * x).sum()

    for _ in range(len(noise) // STEPS):
        train(opt, lambda step: loss(len(found) * STEPS + step), STEPS)
        found.append((0.5 * curvatures * x * x).sum(1).mean().log10().item())
    return found


def correlations(name: str) -> dict[str, float]:
    """Of difficulty and learning rate, for every shift."""
    found = {}
    for arm, shift in SHIFTS.items():
        both = recipe(PEAK, WARMUPS[name], STEPS, shift)
        values = [[schedule(step) for step in range(STEPS)] for schedule in both]
        found[arm] = float(np.corrcoef(values)[0, 1])
    return found


def check(result: Result) -> list[Statement]:
    together, opposite = measured(result, *SWAPPED)
    gain = {name: opposite[name] - together[name] for name in together}
    unit = "powers of 10"
    return [
        larger("lower in step, lr falls", gain["rises and falls"], than=0.3, unit=unit),
        larger("lower at a correlation of 1 than of 0", -slopes(result), than=0.3, unit=unit),
        larger("lower in step, lr only grows", gain["only grows"], than=0.3, unit=unit),
        instead("higher in step, lr only grows", -gain["only grows"], than=0.3, unit=unit),
        instead("T/8 later is worse than earlier", lateness(result), than=0.3, unit=unit),
        absent("the same after T more steps", gain["forgotten"], within=0.1, unit=unit),
    ]


def slopes(result: Result) -> Values:
    """By how much the error changes from a correlation of 0 to 1, by seed."""
    name = "rises and falls"
    errors_by_arm = [result["arms"][arm][name] for arm in SHIFTS]
    correlation = [result["correlations"][name][arm] for arm in SHIFTS]
    return np.polyfit(correlation, np.asarray(errors_by_arm), 1)[0]


def lateness(result: Result) -> Values:
    """The cost of noise that comes later, at the same correlation, where lr only grows."""
    late, early = measured(result, "1/8 later", "1/8 earlier")
    return late["only grows"] - early["only grows"]


def main_panel(axes: Axes, result: Result) -> None:
    for number, name in enumerate(WARMUPS):
        x = [result["correlations"][name][arm] for arm in SHIFTS]
        mean, half = intervals(by_seed(result, name))
        color = plotting.COLORS[number]
        axes.errorbar(x, mean, yerr=half, fmt="o", color=color, label=f"lr {name}", markersize=4)
        axes.plot([*x, x[0]], [*mean, mean[0]], color=color, linewidth=0.6)
        for arm in SWAPPED:
            place = list(SHIFTS).index(arm)
            axes.annotate(arm, (x[place], mean[place]), (-16, 6), textcoords="offset points")
    title = "neighbouring shifts are joined by lines"
    plotting.labelled(axes, title, "correlation of difficulty and lr", "log10 of the final error")


def shifts_panel(axes: Axes, result: Result) -> None:
    names = {
        "rises and falls": "lr rises and falls",
        "only grows": "lr only grows",
        "forgotten": "control: T more steps",
    }
    for number, (name, label) in enumerate(names.items()):
        x = [shift / STEPS for shift in SHIFTS.values()]
        plotting.curve(axes, x, by_seed(result, name), label, number, marker="o", markersize=3)
    axes.set_ylim(top=0.9)  # room for the legend
    plotting.labelled(axes, "0 is in step", "shift of difficulty (T)", "log10 of the error")


def by_seed(result: Result, name: str) -> Values:
    return np.asarray([result["arms"][arm][name] for arm in SHIFTS]).T


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, shifts_panel)
