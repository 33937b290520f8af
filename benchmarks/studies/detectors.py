"""Detectors: a warmup gains more early precision for one stage than for two, at one learning rate.

A one-stage detector classifies every cell of a grid, and divides the sum by the few objects; a
two-stage one learns from a few sampled cells, and classifies the few boxes that these propose:

    one:  (sum_cells CE(kind or background) + sum_objects box) / objects
    two:  mean_sampled BCE(object or not) + mean_proposals CE(kind or background) + boxes

    eta_t = peak min(1, (t + 1) / T_w) for t < 80,  then linearly to 0 at 120
    gain  = AP(with a warmup) - AP(without),     claimed: gain(one) > gain(two)

AP is the average precision at an overlap of 0.5 after the first 120 steps of SGD with momentum, on
images of 32 x 32 pixels with two bright or dark squares in noise, and a grid of 8 x 8 cells. The
warmup takes the 80 steps, so both arms have the same maximum, and the same learning rate after it.
The common peak is 0.025, found on other seeds: there one stage hardly ever learns without a
warmup. All cells of the background pull in one direction, and their sum is divided by the few
objects: its first gradients are many times as large as the two-stage detector's.

Control: a one-stage detector whose background is sampled, three cells for each object, as the
two-stage one's. It must gain nothing. It even loses a little, and so does the two-stage detector,
more: both are stable at this peak, and a warmup only takes learning rate from them.

A lower peak repairs one stage as well, which is checked: without a warmup, and at a peak of 0.01,
it gains as much as by the warmup. Whether two stages gain as much at a limit of their own is left
open: a first version of this study compared the two so, and could not decide with 12 seeds.
"""

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lrfused
from lrfused import schedules

from .common import plotting
from .common.detection import OneStage, TwoStage
from .common.scenes import Scenes, average_precision, scenes
from .common.statistics import Statement, Values, absent, larger
from .common.study import Result, collect, measured
from .common.training import batches, every, stream, train

PROBLEM, SEEDS = 3146196, 18
SWAPPED = ("one-stage", "two-stage")
STEPS, PLATEAU, BATCH, TRAINED, TESTED, EVERY = 120, 80, 16, 1024, 64, 20
WARMUPS = {"no warmup": 0, "warmup": PLATEAU}
PEAK, LOWER = 0.025, 0.01


def recipe(params, peak, warmup_steps, plateau_steps, total_steps):
    """The same learning rate with and without a warmup, once that is over."""
    at_peak, decay_steps = plateau_steps - warmup_steps, total_steps - plateau_steps
    lr = schedules.wsd(peak, warmup_steps, at_peak, decay_steps, start="1/n")
    return lrfused.SGD(params, lr=lr, momentum=0.9, always_measure=True)  # for metrics()


DETECTORS = {
    "one-stage": OneStage,
    "two-stage": TwoStage,
    "sampled": lambda: OneStage(sampled=True),
}


def run(seeds: list[int], device: torch.device) -> Result:
    rows = []
    curves: dict[str, list[list[float]]] = {}
    for seed in seeds:
        generator = stream(seed, "images")
        trained, tested = (scenes(count, generator, device) for count in (TRAINED, TESTED))
        row: dict[str, dict[str, float]] = {"lower peak": {}}
        for arm in DETECTORS:
            row[arm] = {}
            for name, steps in WARMUPS.items():
                precisions, norm = learned(arm, PEAK, steps, seed, trained, tested)
                row[arm][name] = precisions[-1]
                row[arm]["log2 of the first norm"] = math.log2(norm)
                curves.setdefault(f"{arm}, {name}", []).append(precisions)
        precisions, _ = learned("one-stage", LOWER, 0, seed, trained, tested)
        row["lower peak"]["no warmup"] = precisions[-1]
        curves.setdefault("lower peak", []).append(precisions)
        rows.append(row)
    return {"arms": collect(rows), "curves": curves}


def learned(
    arm: str, peak: float, warmup_steps: int, seed: int, trained: Scenes, tested: Scenes
) -> tuple[list[float], float]:
    """Average precisions, and the norm of the first gradients.

    One before training and one at every twentieth step; 0 once it has diverged.
    """
    torch.manual_seed(seed)
    detector = DETECTORS[arm]().to(trained.images.device)
    opt = recipe(detector.parameters(), peak, warmup_steps, PLATEAU, STEPS)
    chosen = batches(TRAINED, BATCH, STEPS, seed).to(trained.images.device)
    start = average_precision(detector, tested)
    precisions, measure = every(EVERY, lambda: average_precision(detector, tested))
    norms: list[float] = []

    def after(step: int) -> None:
        if not norms:
            norms.append(opt.metrics()["grad_norm"])
        measure(step)

    train(
        opt,
        lambda step: detector.loss(trained.picked(chosen[step])),
        STEPS,
        ceiling=1e6,
        after=after,
    )
    missing = [0.0] * (STEPS // EVERY - len(precisions))
    return [start, *precisions, *missing], norms[0]


def check(result: Result) -> list[Statement]:
    one, two, sampled, lower = measured(result, *SWAPPED, "sampled", "lower peak")
    repaired = lower["no warmup"] - one["no warmup"]
    norms = one["log2 of the first norm"] - two["log2 of the first norm"]
    return [
        larger("gain(one) - gain(two)", gain(one) - gain(two), than=0.2, unit="AP"),
        larger("one stage, no warmup: gain of a lower peak", repaired, than=0.2, unit="AP"),
        larger("first gradients, one / two stages", norms, than=2.0, unit="octaves"),
        absent("gain(one), sampled background", gain(sampled), within=0.15, unit="AP"),
    ]


def gain(found: dict[str, Values]) -> Values:
    return found["warmup"] - found["no warmup"]


def main_panel(axes: Axes, result: Result) -> None:
    names = [f"{arm}, {name}" for arm in SWAPPED for name in WARMUPS] + ["lower peak"]
    labels = [*names[:-1], f"one-stage, no warmup, {LOWER:g}"]
    for number, (name, label) in enumerate(zip(names, labels, strict=True)):
        style = "-" if name.endswith(", warmup") else "--"
        steps = range(0, STEPS + 1, EVERY)
        plotting.curve(axes, steps, result["curves"][name], label, number, linestyle=style)
    plotting.labelled(axes, f"learning rate {PEAK:g}", "step", "average precision")


def precisions_panel(axes: Axes, result: Result) -> None:
    groups = {name: [result["arms"][arm][name] for arm in DETECTORS] for name in WARMUPS}
    plotting.bars(axes, [*SWAPPED, "one-stage,\nsampled"], groups)
    plotting.labelled(axes, "after 120 steps", "detector", "average precision")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, precisions_panel)
