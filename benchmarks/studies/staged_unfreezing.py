"""Staged unfreezing: in step with the learning rate it ends better, but is less stable.

The last layer is trained first, the layers before it are released one by one. The learning rate
rises until the last release and then falls; out of step it is the same curve, run backwards:

    layer k (0 = the head) is trained from step k T/4 on
    in step:      eta_t = eta(t),      eta = a linear warmup until 3T/4, a cosine until T
    out of step:  eta_t = eta(T - t)

Both have the same rates, in another order, the same releases, batches and initialisation. An MLP
that knows scikit-learn's digits learns their mirror images from 800 samples, with a new head.

Claim: in step, (1) the final test loss is lower, at a peak that is stable for both, and (2)
training is more stable: at about three times this peak, its largest loss is smaller.

Control: where the layers before the head are never released, the order of the rates must not
matter for the final loss.

What holds: (1). In step, the released layers get most of the sum of the rates, and mirror images
need them. (2) is refuted, for the same reason: in step, the rate peaks when all layers move, and
then the largest stable one is smallest; out of step, the peak meets only the head and one more
layer. So out of step makes up for its loss by a higher peak, with which in step fails. Nor does
staging pay here: with all layers trained from the start, either order of the rates ends with a
lower loss.
"""

import copy

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lrfused
from lrfused import schedules

from .common import plotting
from .common.data import digits
from .common.models import mlp
from .common.statistics import Statement, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import batches, places, stream, thinned, train

PROBLEM, SEEDS = 3143315, 16
SWAPPED = ("in step", "out of step")
SIZES, BATCH, SAMPLES = (64, 64, 64, 64, 10), 64, 800
PRETRAINING, STEPS, CEILING = 200, 200, 100.0
PEAK, HIGH_PEAK = 0.07, 0.2
STAGES = {  # the start steps, from the head on
    "staged": [0, STEPS // 4, STEPS // 2, 3 * STEPS // 4],
    "head only": [0, STEPS, STEPS, STEPS],
    "all at once": [0, 0, 0, 0],
}


def recipe(layers, start_steps, peak, total_steps, in_step):
    """Each layer is left alone until its start step, and the lr rises until the last release."""
    lr = schedules.warmup_cosine(peak, 3 * total_steps // 4, total_steps)
    if not in_step:
        lr = lr.at(total_steps - schedules.step)
    starts = zip(layers, start_steps, strict=True)
    groups = [{"params": layer.parameters(), "start_step": start} for layer, start in starts]
    return lrfused.SGD(groups, lr=lr, momentum=0.9)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in SWAPPED}
    for seed in seeds:
        source, row = pretrained(seed, device), {}
        for arm in SWAPPED:
            in_step = arm == "in step"
            row[arm] = {
                name: fine_tune(source, start_steps, PEAK, in_step, seed)[0]
                for name, start_steps in STAGES.items()
            }
            final, losses = fine_tune(source, STAGES["staged"], HIGH_PEAK, in_step, seed)
            row[arm] |= {"high peak": final, "largest": max(losses)}
            curves[arm].append(thinned(np.log10(losses).tolist()))
        rows.append(row)
    return {"arms": collect(rows), "places": places(STEPS), "curves": curves}


def pretrained(seed: int, device: torch.device) -> nn.Sequential:
    """An MLP that knows the digits, with a new head."""
    torch.manual_seed(seed)
    model = mlp(SIZES).to(device)
    x, y = digits().x.to(device), digits().y.to(device)
    picked = batches(len(x), 64, PRETRAINING, seed).to(device)
    opt = lrfused.SGD(model.parameters(), lr=schedules.cosine(0.1, 0.0, PRETRAINING), momentum=0.9)
    train(opt, lambda step: cross_entropy(model(x[picked[step]]), y[picked[step]]), PRETRAINING)
    model[-1].reset_parameters()
    return model


def fine_tune(
    source: nn.Sequential, start_steps: list[int], peak: float, in_step: bool, seed: int
) -> tuple[float, list[float]]:
    """The final loss on the test set, and the training loss at each step."""
    model = copy.deepcopy(source)
    device = next(model.parameters()).device
    some = torch.randperm(len(digits().x), generator=stream(seed, "images"))[:SAMPLES]
    x, y = mirrored(digits().x[some]).to(device), digits().y[some].to(device)
    picked = batches(SAMPLES, BATCH, STEPS, seed).to(device)
    layers = [layer for layer in reversed(model) if isinstance(layer, nn.Linear)]
    opt = recipe(layers, start_steps, peak, STEPS, in_step)

    def loss(step: int) -> Tensor:
        return cross_entropy(model(x[picked[step]]), y[picked[step]])

    losses = train(opt, loss, STEPS, ceiling=CEILING)
    with torch.no_grad():
        logits = model(mirrored(digits().test_x).to(device))
        final = cross_entropy(logits, digits().test_y.to(device)).item()
    return final if final <= CEILING else CEILING, losses


def mirrored(images: Tensor) -> Tensor:
    return images.view(-1, 8, 8).flip(2).reshape(-1, 64)


def check(result: Result) -> list[Statement]:
    together, apart = measured(result, *SWAPPED)
    gain = {name: apart[name] - together[name] for name in STAGES}
    steadier = np.log10(apart["largest"] / together["largest"])
    raised = apart["staged"] - apart["high peak"]
    return [
        larger("a lower final loss in step", gain["staged"], than=0.03, unit="nats"),
        larger("a smaller largest loss in step", steadier, than=0.1, unit="powers of 10"),
        instead("a larger largest loss in step", -steadier, than=0.1, unit="powers of 10"),
        instead("out of step gains from a higher peak", raised, than=0.03, unit="nats"),
        absent("the final loss of the head alone", gain["head only"], within=0.03, unit="nats"),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, losses) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], losses, arm, number)
    for release in STAGES["staged"][1:]:
        axes.axvline(release, color=plotting.COLORS[5], linestyle=":", linewidth=1)
    title = f"peak {HIGH_PEAK}; a layer is released at each dotted line"
    plotting.labelled(axes, title, "step", "log10 of training loss (nats)")


def losses_panel(axes: Axes, result: Result) -> None:
    names = {"staged": "staged", "head only": "head only", "all at once": "not staged"}
    finals = {arm: [result["arms"][arm][name] for name in names] for arm in SWAPPED}
    plotting.bars(axes, list(names.values()), finals)
    axes.set_ylim(0.0)
    plotting.labelled(axes, f"peak {PEAK}", "", "final test loss (nats)")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, losses_panel)
