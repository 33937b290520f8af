"""Gates of an LSTM: without a warmup, the first large steps saturate them for the whole run.

A gate is a sigmoid s of what the cell reads, and a gradient that passes is multiplied by its slope:

    gate = s(W x_t + U h_{t-1} + b),     s' = s (1 - s),     saturated: gate < 0.05 or gate > 0.95
    eta_t = peak min(1, (t + 1) / T_w)  for t < 60,     then linear to 0 at step 160

so that less than 5% of a gradient passes a saturated gate, 25% an even one. With the warmup, T_w is
60; without it, the plateau at the peak begins at once. Both runs reach the same peak, and from step
60 on their learning rates are the same.

Claim: with the warmup, fewer input, forget and output gates are saturated after the run, more of
the gradient reaches the input 5 characters back, the largest gradient norm of the first 20 steps is
smaller, and the validation loss after the run is lower. The task is the next character of the
Python library's sources, for 48 cells and SGD with momentum. The peak, 5.6, is too high for the
initialisation, but not for a network that is trained a little: with the warmup, the loss after the
run is that of a run without a warmup at a quarter of the peak. So who can do with this lower peak
needs no warmup here, and has fewer saturated gates. In single runs with the warmup, the norm jumps
early, too: hence its wide interval.

Control: at a quarter of the peak the initialisation bears it, too, and the effects must be absent.
A few more gates still saturate without the warmup, as the weights have moved further, and the loss
is even a little lower.
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
from .common.statistics import Statement, absent, agrees, larger
from .common.study import Result, collect, measured
from .common.training import thinned, train

PROBLEM, SEEDS = 3143252, 24
SWAPPED = ("no warmup", "warmup")
STEPS, WARMUP_STEPS, BATCH, BLOCK, WIDTH, CELLS = 160, 60, 16, 20, 32, 48
PEAKS = {"high": 5.6, "control": 1.4}
ARMS = {"no warmup": 0, "warmup": WARMUP_STEPS}
EDGE, BACK, EARLY, EVERY, SHOWN = 0.05, 5, 20, 10, 40
VALIDATED, PROBED = 256, 16  # windows: for loss and gradients, for gates


def recipe(params, peak, warmup_steps, plateau_end, total_steps):
    """opt.metrics() then has grad_norm, although nothing is clipped."""
    plateau, decay = plateau_end - warmup_steps, total_steps - plateau_end
    lr = schedules.wsd(peak, warmup_steps, plateau, decay, start="1/n")
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

    def reach(self, windows: Tensor) -> float:
        """The gradient of the last prediction's loss at the input BACK characters before it."""
        x = self.embedding(windows[:, :-1]).detach().requires_grad_()
        logits = self.head(self.lstm(x)[0][:, -1])
        loss = nn.functional.cross_entropy(logits, windows[:, -1], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        return gradient[:, -1 - BACK].norm(dim=-1).mean().item()


def run(seeds: list[int], device: torch.device) -> Result:
    rows = []
    curves: dict[str, dict[str, list[list[float]]]] = {
        curve: {arm: [] for arm in ARMS} for curve in ("norm", "saturated")
    }
    for seed in seeds:
        row: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
        for name, peak in PEAKS.items():
            for arm, warmup_steps in ARMS.items():
                found, norms, shares = trained(peak, warmup_steps, seed, device)
                row[arm] |= {f"{measure}, {name}": value for measure, value in found.items()}
                if name != "control":
                    curves["norm"][arm].append(thinned(norms[:SHOWN]))
                    curves["saturated"][arm].append(thinned(shares))
        rows.append(row)
    return {"arms": collect(rows), "curves": curves}


def trained(
    peak: float, warmup_steps: int, seed: int, device: torch.device
) -> tuple[dict[str, float], list[float], list[float]]:
    """What is measured, the gradient norm at each step, the saturated share at every tenth."""
    torch.manual_seed(seed)
    corpus = data.text()
    model = Characters(len(corpus.vocabulary)).to(device)
    windows = [part.to(device) for part in draw_batches(corpus.train, STEPS, BATCH, BLOCK, seed)]
    validation = next(draw_batches(corpus.validation, 1, VALIDATED, BLOCK, seed)).to(device)
    probe = validation[:PROBED, :-1]
    opt = recipe(model.parameters(), peak, warmup_steps, WARMUP_STEPS, STEPS)
    norms: list[float] = []
    shares = [model.saturated(probe)]

    def after(step: int) -> None:
        norms.append(opt.metrics()["grad_norm"])
        if (step + 1) % EVERY == 0:
            shares.append(model.saturated(probe))

    train(opt, lambda step: model.loss(windows[step]), STEPS, after=after)
    with torch.no_grad():
        loss = model.loss(validation).item()
    reach, early = math.log10(model.reach(validation)), math.log2(max(norms[:EARLY]))
    return {"gates": shares[-1], "reach": reach, "norm": early, "loss": loss}, norms, shares


def check(result: Result) -> list[Statement]:
    without, warmup = measured(result, *SWAPPED)
    saved = {measure: without[measure] - warmup[measure] for measure in without}
    gates, norms, decades = "share of gates", "doublings", "decades"
    return [
        larger("fewer saturated gates", saved["gates, high"], than=0.25, unit=gates),
        larger("a gradient reaches further", -saved["reach, high"], than=0.5, unit=decades),
        larger("smaller early peak of the norm", saved["norm, high"], than=0.4, unit=norms),
        larger("lower validation loss", saved["loss, high"], than=0.15, unit="nats"),
        absent("gates, at a quarter", saved["gates, control"], within=0.1, unit=gates),
        absent("reach, at a quarter", -saved["reach, control"], within=0.25, unit=decades),
        absent("norm, at a quarter", saved["norm, control"], within=0.5, unit=norms),
        absent("loss, at a quarter", saved["loss, control"], within=0.08, unit="nats"),
        agrees(
            "loss: warmup = none, a quarter",
            warmup["loss, high"] - without["loss, control"],
            within=0.12,
            unit="nats",
        ),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, shares) in enumerate(result["curves"]["saturated"].items()):
        plotting.curve(axes, range(0, STEPS + 1, EVERY), shares, arm, number)
    axes.set_ylim(0.0, 1.0)
    plotting.labelled(axes, "gates below 0.05 or above 0.95", "step", "share of all gates")


def norms_panel(axes: Axes, result: Result) -> None:
    for number, (arm, norms) in enumerate(result["curves"]["norm"].items()):
        plotting.curve(axes, range(SHOWN), norms, arm, number)
    axes.set_ylim(bottom=0.0)
    plotting.labelled(axes, "the first steps", "step", "gradient norm")


def loss_panel(axes: Axes, result: Result) -> None:
    losses = {arm: [result["arms"][arm][f"loss, {name}"] for name in PEAKS] for arm in ARMS}
    plotting.bars(axes, [f"{name}, {peak:g}" for name, peak in PEAKS.items()], losses)
    plotting.labelled(axes, "after the run", "learning rate", "validation loss in nats")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, norms_panel, loss_panel)
