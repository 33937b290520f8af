"""The orchestra: hyperparameters that follow the learning rate reach a lower validation loss.

One small GPT on characters of the Python library's sources. All hyperparameters h read the same
pace, the learning rate in units of its peak (a warmup and a cosine), and rise as it falls: both
betas, weight decay, the threshold of the clip and the decay of the average in the optimizer,
dropout in the model, and in the data the share of characters that are replaced.

    s(t) = lr(t) / peak,     h(t) = h_peak - (h_peak - h_low) s(t)

Claim: the loss of the averaged weights on files that training never saw is lower than with every h
constant at its peak, and lower than with every h constant at its mean over the run, while the
learning rate is the same.

Control: a run in which they follow with only 5% of their ranges, near their lowest values. The same
comparisons must show no difference.

What holds: only the first. Following the pace gives the hyperparameters lower values than their
peaks, on average, which helps in a run as short as this; constants at these averages gain as much,
but for less than the margin. So it is the values that count here, not that they are in step. That
they are in step is not without effect, though: the same values in reverse, high where the learning
rate is high, are worse than both.
"""

from collections.abc import Mapping

import torch
from demo_model import GPT, Shape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

import lrfused
from lrfused import schedules

from .common import data, plotting
from .common.statistics import Statement, Values, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import batches, places, stream, thinned, train

PROBLEM, SEEDS = None, 16
SWAPPED = ("in step", "constant peaks")
ARMS = (*SWAPPED, "constant means", "reversed")
STEPS, WEAK, PEAK = 200, 0.05, 3e-3
BATCH, BLOCK, WINDOWS, PARTS = 8, 32, 200, 20
MARGIN, SMALL, WITHIN = 0.05, 0.02, 0.03  # 2% of the loss; less than that; a control's
UNIT = "nats a character"


def recipe(model, lr, pace):
    """pace = lr / peak: dropout and noise are read by the model and by the data."""
    betas = (0.95 - 0.1 * pace, 0.99 - 0.09 * pace)
    options = {"weight_decay": 0.3 - 0.27 * pace, "max_grad_norm": 1.0 - 0.5 * pace}
    average = {"ema_decay": 0.98 - 0.18 * pace, "bias_correction": "product"}
    opt = lrfused.AdamW(model.parameters(), lr=lr, betas=betas, **options, **average)
    dropout, noise = 0.2 * (1 - pace), 0.05 * (1 - pace)
    return opt, dropout, noise


class DroppingGPT(GPT):
    """With dropout of the token embeddings and of what each block adds."""

    def __init__(self, shape: Shape):
        super().__init__(shape)
        self.rate = 0.0
        for name, layer in self.named_modules():
            if name == "token" or name.endswith("_out"):
                layer.register_forward_hook(self.drop)

    def drop(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return F.dropout(output, self.rate, self.training)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in ARMS}
    for seed in seeds:
        row = {}
        for arm in ARMS:
            loss, losses = trained(arm, 1.0, seed, device)
            control, _ = trained(arm, WEAK, seed, device)
            row[arm] = {"in nats": loss, "control": control}
            curves[arm].append(thinned(losses, PARTS))
        rows.append(row)
    return {"arms": collect(rows), "places": places(STEPS, PARTS), "curves": curves}


def pace_of(lr: schedules.Schedule, arm: str) -> schedules.Schedule:
    """What the hyperparameters follow; they are at their peaks where it is smallest."""
    pace = lr / PEAK
    values = pace.values(range(STEPS))
    return {
        "in step": pace,
        "constant peaks": schedules.constant(values.min()),
        "constant means": schedules.constant(values.mean()),
        "reversed": pace.at(schedules.maximum(STEPS - 1 - schedules.step, 0)),
    }[arm]


def trained(
    arm: str, coupling: float, seed: int, device: torch.device
) -> tuple[float, list[float]]:
    """The averaged weights' validation loss, and the training loss at each step."""
    lr = schedules.warmup_cosine(PEAK, STEPS // 10, STEPS, start="1/n")
    text = data.text()
    torch.manual_seed(seed)
    model = DroppingGPT(Shape(len(text.vocabulary), BLOCK, width=32, layers=2)).to(device)
    opt, dropout, noise = recipe(model, lr, 1 - coupling * (1 - pace_of(lr, arm)))
    starts = batches(len(text.train) - BLOCK, BATCH, STEPS, seed)
    generator = stream(seed, "dropout")
    chances = torch.rand(STEPS, BATCH, BLOCK, generator=generator)
    others = torch.randint(len(text.vocabulary), chances.shape, generator=generator)

    def loss(step: int) -> Tensor:
        inputs, targets = windows(text.train, starts[step])
        model.rate = dropout(opt.known_step)
        replaced = chances[step] < noise(opt.known_step)
        return character_loss(model, torch.where(replaced, others[step], inputs), targets, device)

    losses = train(opt, loss, STEPS)
    model.eval()
    starts = batches(len(text.validation) - BLOCK, WINDOWS, 1, seed=0)[0]
    with torch.no_grad(), opt.averaged(model):
        found = character_loss(model, *windows(text.validation, starts), device).item()
    return found, losses


def windows(text: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """BLOCK characters from every start, and the next one for each."""
    found = text[starts[:, None] + torch.arange(BLOCK + 1)]
    return found[:, :-1], found[:, 1:]


def character_loss(model: GPT, inputs: Tensor, targets: Tensor, device: torch.device) -> Tensor:
    logits = model(inputs.to(device))
    return F.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten())


def check(result: Result) -> list[Statement]:
    in_step, peaks, means, reverse = measured(result, *ARMS)

    def gain(other: Mapping[str, Values], measure: str = "in nats") -> Values:
        return other[measure] - in_step[measure]

    return [
        larger("lower loss than with constant peaks", gain(peaks), than=MARGIN, unit=UNIT),
        larger("lower loss than with constant means", gain(means), than=MARGIN, unit=UNIT),
        instead("lower loss than in reverse", gain(reverse), than=SMALL, unit=UNIT),
        absent(
            "coupled weakly: lower than with peaks",
            gain(peaks, "control"),
            within=WITHIN,
            unit=UNIT,
        ),
        absent(
            "coupled weakly: lower than with means",
            gain(means, "control"),
            within=WITHIN,
            unit=UNIT,
        ),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, losses) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], losses, arm, number)
    plotting.labelled(axes, "training", "step", "training loss in nats a character")


def gain_panel(axes: Axes, result: Result) -> None:
    in_step, *others = measured(result, *ARMS)
    groups = {
        label: [other[measure] - in_step[measure] for other in others]
        for label, measure in (("full schedule", "in nats"), ("control", "control"))
    }
    plotting.bars(axes, [arm.replace(" ", "\n") for arm in ARMS[1:]], groups)
    axes.axhline(MARGIN, color=plotting.MARGIN_COLOR, linestyle="--", label="margin")
    plotting.labelled(axes, "gain of being in step", "instead of", "nats a character")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, gain_panel)
