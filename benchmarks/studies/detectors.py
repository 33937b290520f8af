"""Detectors: a warmup gains more early precision for one stage than for two, at one learning rate.

A one-stage detector classifies every cell of a grid, and divides the sum by the few objects; a
two-stage one learns from a few sampled cells, and classifies the few boxes that these propose:

    one:  (sum_cells CE(kind or background) + sum_objects box) / objects
    two:  mean_sampled BCE(object or not) + mean_proposals CE(kind or background) + boxes

    gain = AP(with a warmup) - AP(without),     claimed: gain(one) > gain(two)

AP is the average precision at an overlap of 0.5 after the first 120 steps of SGD with momentum, on
images of 32 x 32 pixels with two bright or dark squares in noise, and a grid of 8 x 8 cells. The
warmup takes two thirds of them. The claim is tested at one learning rate for both, 0.03, and again
with each detector at its own limit, where it hardly ever learns without a warmup: 0.03 for one
stage, which still learns at 0.015, and 0.3 for two, which still learn at 0.1. Both limits were
found on other seeds.

Control: a one-stage detector whose background is sampled, three cells for each object, as the
two-stage one's. At the common learning rate its gain must not differ from the two-stage detector's.

What holds: the difference is there at a common learning rate, and is gone when each has its own: a
two-stage detector at its limit gains as much. All cells of the background pull in one direction,
and their sum is divided by the few objects: the first gradients of the one-stage detector are about
40 times as large, and its limit is a tenth. So a warmup repairs a learning rate that is too large
for the beginning, and it is the scale of the loss, not the number of stages, that makes it so.
"""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lrfused
from lrfused import schedules

from .common import plotting
from .common.detection import OneStage, TwoStage
from .common.scenes import Scenes, average_precision, scenes
from .common.statistics import Statement, Values, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import batches, every, stream, train

PROBLEM, SEEDS = 3146196, 18
SWAPPED = ("one-stage", "two-stage")
STEPS, BATCH, TRAINED, TESTED, EVERY = 120, 16, 1024, 64, 20
WARMUPS = {"no warmup": 0, "warmup": 80}
PEAKS = {
    "one-stage": {"common": 0.03},
    "two-stage": {"common": 0.03, "limit": 0.3},
    "sampled": {"common": 0.03},
}


def recipe(params, peak, warmup_steps, total_steps):
    lr = schedules.cosine(peak, 0.0, total_steps)
    if warmup_steps:
        lr = lr * schedules.minimum((schedules.step + 1) / warmup_steps, 1.0)
    return lrfused.SGD(params, lr=lr, momentum=0.9)


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
        row: dict[str, dict[str, float]] = {}
        for arm, peaks in PEAKS.items():
            row[arm] = {}
            for name, peak in peaks.items():
                for warmup, steps in WARMUPS.items():
                    precisions = learned(arm, peak, steps, seed, trained, tested)
                    row[arm][f"{name}, {warmup}"] = precisions[-1]
                    curves.setdefault(f"{arm} {peak:g}, {warmup}", []).append(precisions)
        for warmup in WARMUPS:  # the common learning rate is this one's limit
            row["one-stage"][f"limit, {warmup}"] = row["one-stage"][f"common, {warmup}"]
        rows.append(row)
    return {"arms": collect(rows), "curves": curves}


def learned(
    arm: str, peak: float, warmup_steps: int, seed: int, trained: Scenes, tested: Scenes
) -> list[float]:
    """The average precision before training and at every twentieth step; 0 once it has diverged."""
    torch.manual_seed(seed)
    detector = DETECTORS[arm]().to(trained.images.device)
    opt = recipe(detector.parameters(), peak, warmup_steps, STEPS)
    chosen = batches(TRAINED, BATCH, STEPS, seed).to(trained.images.device)
    start = average_precision(detector, tested)
    precisions, after = every(EVERY, lambda: average_precision(detector, tested))
    train(
        opt,
        lambda step: detector.loss(trained.picked(chosen[step])),
        STEPS,
        ceiling=1e6,
        after=after,
    )
    return [start, *precisions] + [0.0] * (STEPS // EVERY - len(precisions))


def check(result: Result) -> list[Statement]:
    one, two, sampled = measured(result, *SWAPPED, "sampled")
    common = gain(two, "common")
    apart = gain(one, "limit") - gain(two, "limit")
    control = gain(sampled, "common") - common
    return [
        larger("one - two, common lr", gain(one, "common") - common, than=0.2, unit="AP"),
        larger("one - two, each at its limit", apart, than=0.2, unit="AP"),
        instead("two stages gain at their limit", gain(two, "limit"), than=0.2, unit="AP"),
        absent("sampled - two, common lr", control, within=0.15, unit="AP"),
    ]


def gain(found: dict[str, Values], name: str) -> Values:
    return found[f"{name}, warmup"] - found[f"{name}, no warmup"]


def main_panel(axes: Axes, result: Result) -> None:
    shown = [label for label in result["curves"] if not label.startswith("sampled")]
    for number, label in enumerate(shown):
        style = "-" if label.endswith(", warmup") else "--"
        steps = range(0, STEPS + 1, EVERY)
        plotting.curve(axes, steps, result["curves"][label], label, number, linestyle=style)
    plotting.labelled(axes, "in the first steps", "step", "average precision")


def gains_panel(axes: Axes, result: Result) -> None:
    cases = [(arm, name) for arm, peaks in PEAKS.items() for name in peaks]
    groups = {
        warmup: [result["arms"][arm][f"{name}, {warmup}"] for arm, name in cases]
        for warmup in WARMUPS
    }
    plotting.bars(axes, [f"{arm}\n{PEAKS[arm][name]:g}" for arm, name in cases], groups)
    plotting.labelled(axes, "after 120 steps", "detector, learning rate", "average precision")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, gains_panel)
