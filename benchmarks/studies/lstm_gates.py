"""Gates of an LSTM: without a warmup, the first large steps saturate them, and learning suffers.

A gate is a sigmoid of what the cell reads, and what it learns from is multiplied by the gate's slope:

    gate = s(W x_t + U h_{t-1} + b),     s' = s (1 - s),     saturated: gate < 0.05 or gate > 0.95

so that a saturated gate passes less than 5% of a gradient, where an even one passes 25%. The lr is
eta_t = min(1, (t + 1) / T_w) cosine(t), with T_w = 0 or a third of the run.

Claim: with the warmup, fewer input, forget and output gates are saturated after the run, the largest
gradient norm of the run is smaller, and the validation loss at the end is lower. The task is the next
character of the Python library's sources, for one layer of 48 cells and SGD with momentum, at a
learning rate that the trained network bears, and the untrained one does not.

Control: at a third of that learning rate the untrained network bears it, too, and the effects must be
absent. Gates still saturate a little more without the warmup, as weights have moved further.
"""

import math

import torch
from demo_data import draw_batches
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import lrfused
from lrfused import schedules

from .common import data, plotting
from .common.statistics import Statement, absent, larger
from .common.study import Result, collect, measured
from .common.training import places, thinned, train

PROBLEM, SEEDS = 3143252, 12
SWAPPED = ("no warmup", "warmup")
STEPS, WARMUP_STEPS, BATCH, BLOCK, WIDTH, CELLS = 210, 70, 16, 20, 32, 48
PEAKS = {"high": 6.0, "control": 2.0}
ARMS = {"no warmup": 0, "warmup": WARMUP_STEPS}
EDGE, PROBED, EVERY, VALIDATED = 0.05, 16, 10, 256  # EDGE: from 0 or 1


def recipe(params, peak, warmup_steps, total_steps):
    """opt.metrics() then has grad_norm, although nothing is clipped."""
    lr = schedules.cosine(peak, 0.0, total_steps)
    if warmup_steps:
        lr = lr * schedules.minimum((schedules.step + 1) / warmup_steps, 1.0)
    return lrfused.SGD(params, lr=lr, momentum=0.9, always_measure=True)


class Characters(nn.Module):
    """Logits of the next character."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        self.lstm = nn.LSTM(WIDTH, CELLS, batch_first=True)
        self.head = nn.Linear(CELLS, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0])

    def loss(self, windows: Tensor) -> Tensor:
        logits = self(windows[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())

    @torch.no_grad()
    def saturated(self, tokens: Tensor) -> float:
        """The share of gates near 0 or 1, over all cells, positions and the three kinds."""
        x, cell = self.embedding(tokens), self.lstm
        hidden = nn.functional.pad(cell(x)[0], (0, 0, 1, 0))[:, :-1]  # at the position before
        inputs = nn.functional.linear(x, cell.weight_ih_l0, cell.bias_ih_l0)
        inputs += nn.functional.linear(hidden, cell.weight_hh_l0, cell.bias_hh_l0)
        entry, forget, _, output = inputs.chunk(4, dim=-1)
        gates = torch.stack((entry, forget, output)).sigmoid()
        return ((gates - 0.5).abs() > 0.5 - EDGE).float().mean().item()


def run(seeds: list[int], device: torch.device) -> Result:
    rows = []
    curves: dict[str, dict[str, list[list[float]]]] = {"norm": {}, "saturated": {}}
    for seed in seeds:
        row: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
        for name, peak in PEAKS.items():
            for arm, warmup_steps in ARMS.items():
                norms, shares, loss = trained(peak, warmup_steps, seed, device)
                row[arm][f"saturated, {name}"] = shares[-1]
                row[arm][f"doublings, {name}"] = math.log2(max(norms))
                row[arm][f"loss, {name}"] = loss
                if name != "control":
                    curves["norm"].setdefault(arm, []).append(thinned(norms))
                    curves["saturated"].setdefault(arm, []).append(thinned(shares))
        rows.append(row)
    return {"arms": collect(rows), "places": places(STEPS), "curves": curves}


def trained(
    peak: float, warmup_steps: int, seed: int, device: torch.device
) -> tuple[list[float], list[float], float]:
    """Gradient norm at each step, saturated share at every tenth, validation loss at the end."""
    torch.manual_seed(seed)
    corpus = data.text()
    model = Characters(len(corpus.vocabulary)).to(device)
    windows = [part.to(device) for part in draw_batches(corpus.train, STEPS, BATCH, BLOCK, seed)]
    validation = next(draw_batches(corpus.validation, 1, VALIDATED, BLOCK, seed)).to(device)
    probe = validation[:PROBED, :-1]
    opt = recipe(model.parameters(), peak, warmup_steps, STEPS)
    norms: list[float] = []
    shares = [model.saturated(probe)]

    def after(step: int) -> None:
        norms.append(opt.metrics()["grad_norm"])
        if (step + 1) % EVERY == 0:
            shares.append(model.saturated(probe))

    train(opt, lambda step: model.loss(windows[step]), STEPS, after=after)
    with torch.no_grad():
        return norms, shares, model.loss(validation).item()


def check(result: Result) -> list[Statement]:
    without, warmup = measured(result, *SWAPPED)
    gates, losses, norms = (
        {name: without[f"{measure}, {name}"] - warmup[f"{measure}, {name}"] for name in PEAKS}
        for measure in ("saturated", "loss", "doublings")
    )
    return [
        larger("fewer saturated gates", gates["high"], than=0.25, unit="share of gates"),
        larger("a smaller largest norm", norms["high"], than=0.5, unit="doublings"),
        larger("a lower validation loss", losses["high"], than=0.15, unit="nats"),
        absent("gates, at a third", gates["control"], within=0.15, unit="share of gates"),
        absent("norm, at a third", norms["control"], within=0.5, unit="doublings"),
        absent("loss, at a third", losses["control"], within=0.08, unit="nats"),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    steps = range(0, STEPS + 1, EVERY)
    for number, (arm, shares) in enumerate(result["curves"]["saturated"].items()):
        plotting.curve(axes, steps, shares, arm, number)
    axes.set_ylim(0.0, 1.0)
    plotting.labelled(axes, "gates below 0.05 or above 0.95", "step", "share of all gates")


def norms_panel(axes: Axes, result: Result) -> None:
    for number, (arm, norms) in enumerate(result["curves"]["norm"].items()):
        plotting.curve(axes, result["places"], norms, arm, number)
    axes.set_ylim(bottom=0.0)
    plotting.labelled(axes, "high learning rate", "step", "gradient norm")


def loss_panel(axes: Axes, result: Result) -> None:
    losses = {arm: [result["arms"][arm][f"loss, {name}"] for name in PEAKS] for arm in ARMS}
    plotting.bars(axes, list(PEAKS), losses)
    plotting.labelled(axes, "after the run", "learning rate", "validation loss in nats")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, norms_panel, loss_panel)
