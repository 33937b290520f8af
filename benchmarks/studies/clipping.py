"""Clipping and warmup: above the stability limit, a warmup leaves fewer steps to be clipped.

The gradient g is clipped to a norm of c. With and without a warmup over T_w steps, the learning
rate is the same from step T_w on: at its peak until the middle of the run, then falling to 0.

    g <- g min(1, c / |g|),     eta_t = peak min(1, t / T_w) until the plateau ends

Claim: with a warmup, the norm exceeds c in fewer steps of the same run. The loss is a quadratic, as
in the chapter, with noisy gradients and momentum, and the peak 1.3 times the stability limit, which
is 2 (1 + b) / lambda_max: without the warmup, the parameters are thrown out at once, and the clip
alone holds them until the learning rate has fallen below the limit. With it, they first come near
the minimum, and are thrown out later: the clips that it saves are those of the warmup. The count is
`metrics()["clipped_steps"]`.

Control: with a peak of half the limit nothing is thrown out, and the effect must be absent. It is
even reversed by a few steps: a warmup stays longer at the start, where gradients are large. So it
replaces clips where a learning rate is unstable, not where gradients are large to begin with.
"""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import lrfused
from lrfused import analysis, schedules

from .common import plotting
from .common.statistics import Statement, absent, larger
from .common.study import Result, collect, measured
from .common.training import places, thinned, train

PROBLEM, SEEDS = 3131455, 24
SWAPPED = ("no warmup", "warmup")
STEPS, WARMUP_STEPS, MAX_GRAD_NORM, MOMENTUM = 400, 150, 10.0, 0.9
CURVATURES, NOISE = torch.logspace(-2, 1, 50), 0.05
PEAKS = {"above the limit": 1.3, "control": 0.5}  # in units of the stability limit
ARMS = {"no warmup": 0, "warmup": WARMUP_STEPS}


def recipe(params, peak, warmup_steps, total_steps, max_grad_norm):
    """opt.metrics() then has grad_norm, clip_coefficient and clipped_steps."""
    half = total_steps // 2
    lr = schedules.wsd(peak, warmup_steps, half - warmup_steps, half)
    return lrfused.SGD(params, lr=lr, momentum=0.9, max_grad_norm=max_grad_norm)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in ARMS}
    for seed in seeds:
        row = {}
        for arm, warmup_steps in ARMS.items():
            row[arm] = {}
            for name, factor in PEAKS.items():
                peak = factor * analysis.stable_lr(CURVATURES.max().item(), MOMENTUM)
                row[arm][name], norms = clipped_share(peak, warmup_steps, seed, device)
                if name != "control":
                    curves[arm].append(thinned(norms))
        rows.append(row)
    return {"arms": collect(rows), "places": places(STEPS), "curves": curves}


def clipped_share(
    peak: float, warmup_steps: int, seed: int, device: torch.device
) -> tuple[float, list[float]]:
    """The share of steps that were clipped, and the norm at each."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(len(CURVATURES), generator=generator)
    noise = NOISE * torch.randn(STEPS, len(CURVATURES), generator=generator)
    x, curvatures = torch.nn.Parameter(start.to(device)), CURVATURES.to(device)
    noise = (noise * CURVATURES.sqrt()).to(device)
    opt = recipe([x], peak, warmup_steps, STEPS, MAX_GRAD_NORM)
    norms: list[float] = []

    def loss(step: int) -> Tensor:
        return (0.5 * curvatures * x * x + noise[step] * x).sum()

    train(opt, loss, STEPS, after=lambda step: norms.append(opt.metrics()["grad_norm"]))
    return opt.metrics()["clipped_steps"] / STEPS, norms


def check(result: Result) -> list[Statement]:
    without, warmup = measured(result, "no warmup", "warmup")
    saved = {name: without[name] - warmup[name] for name in PEAKS}
    return [
        larger(
            "fewer clipped steps with the warmup",
            saved["above the limit"],
            than=0.05,
            unit="share of steps",
        ),
        absent(
            "the same at half of the limit", saved["control"], within=0.05, unit="share of steps"
        ),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, norms) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], norms, arm, number)
    axes.axhline(MAX_GRAD_NORM, color=plotting.MARGIN_COLOR, linestyle="--", label="threshold c")
    axes.set_yscale("log")
    plotting.labelled(axes, "peak of 1.3 times the stability limit", "step", "gradient norm")


def shares_panel(axes: Axes, result: Result) -> None:
    shares = {arm: [result["arms"][arm][name] for name in PEAKS] for arm in ARMS}
    plotting.bars(axes, list(PEAKS), shares)
    plotting.labelled(axes, "steps that were clipped", "peak", "share of all steps")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, shares_panel)
