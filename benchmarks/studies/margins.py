"""A learning rate for every sample, from its margin: worth it where labels are wrong.

The margin of a sample is the logit of its label less the largest of the others. With a weight that
grows with the margin, the steps are long for easy samples and short for hard ones:

    loss = mean_i w_i loss_i,     w_i ~ 0.1 + 0.9 sigmoid(m_i),     mean_i w_i = 1

Claims: the accuracy on test data is higher than with equal weights; and higher than with the same
weights dealt to the samples of the batch at random, which do not depend on the margin (but are
noise, and as such help a little). The task is to learn 800 digits, half of them with a random
label, with AdamW and a cosine. The network finds the rule before it can fit the wrong labels, so
that these are the samples that are hard, and get a small weight.

Control: with right labels throughout, hard samples are as right as easy ones. There is nothing to
gain, and the effect must be absent.
"""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

import lrfused
from lrfused import losses, schedules

from .common import data, models, plotting
from .common.statistics import Statement, absent, larger
from .common.study import Result, collect, measured
from .common.training import batches, stream, train

PROBLEM, SEEDS = 3096909, 12
SWAPPED = ("equal", "margin")
STEPS, BATCH, PEAK, EVERY = 500, 64, 1e-2, 20
SAMPLES, NOISES = 800, {"wrong labels": 0.5, "right labels": 0.0}
ARMS = ("equal", "margin", "shuffled")
UNIT = "share of the test data"


def recipe(logits, targets):
    """The loss of a batch in which easy samples count more."""
    weights = losses.margin_weights(logits, targets, temperature=1.0, floor=0.1)
    each = functional.cross_entropy(logits, targets, reduction="none")
    return (weights * each).mean()


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in ARMS}
    weights: dict[str, list[list[float]]] = {"right": [], "wrong": []}
    for seed in seeds:
        row: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
        for name, noise in NOISES.items():
            task = Task(noise, seed, device)
            for arm in ARMS if noise else ARMS[:2]:
                accuracies, by_label = training(arm, task, seed)
                row[arm][name] = accuracies[-1]
                if noise:
                    curves[arm].append(accuracies)
                if noise and arm == "margin":
                    for label, means in by_label.items():
                        weights[label].append(means)
        rows.append(row)
    places = list(range(EVERY, STEPS + 1, EVERY))
    return {"arms": collect(rows), "places": places, "curves": curves, "weights": weights}


class Task:
    """Digits of which some have a random label: `wrong` says which labels are."""

    def __init__(self, noise: float, seed: int, device: torch.device):
        generator, digits = stream(seed, "labels"), data.digits()
        noisy = data.mislabelled(SAMPLES, noise, generator)
        self.x, self.y, self.wrong = (values.to(device) for values in noisy)
        self.test_x, self.test_y = digits.test_x.to(device), digits.test_y.to(device)


def training(arm: str, task: Task, seed: int) -> tuple[list[float], dict[str, list[float]]]:
    """Every EVERY steps the test accuracy, and the mean weights of right and wrong labels."""
    torch.manual_seed(seed)
    model = models.mlp([64, 64, 10]).to(task.x.device)
    lr = schedules.cosine(PEAK, 0.0, STEPS)
    opt = lrfused.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    order = batches(SAMPLES, BATCH, STEPS, seed).to(task.x.device)
    accuracies: list[float] = []
    by_label: dict[str, list[float]] = {"right": [], "wrong": []}

    def evaluate(step: int) -> None:
        if (step + 1) % EVERY == 0:
            accuracies.append(round(models.accuracy(model, task.test_x, task.test_y), 4))
            for label, mean in mean_weights(model, task).items():
                by_label[label].append(mean)

    def loss(step: int) -> Tensor:
        return LOSSES[arm](model(task.x[order[step]]), task.y[order[step]])

    train(opt, loss, STEPS, after=evaluate)
    return accuracies, by_label


def shuffled_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss with the same weights, dealt to the samples at random."""
    weights = losses.margin_weights(logits, targets, temperature=1.0, floor=0.1)
    order = torch.randperm(len(targets)).to(targets.device)
    return (weights[order] * functional.cross_entropy(logits, targets, reduction="none")).mean()


LOSSES = {"equal": functional.cross_entropy, "margin": recipe, "shuffled": shuffled_loss}


@torch.no_grad()
def mean_weights(model: nn.Module, task: Task) -> dict[str, float]:
    """The mean weight of the samples with a right label, and of those with a wrong one, if any."""
    weights = losses.margin_weights(model(task.x), task.y, temperature=1.0, floor=0.1)
    parts = {"right": weights[~task.wrong], "wrong": weights[task.wrong]}
    return {label: round(part.mean().item(), 4) for label, part in parts.items() if len(part)}


def check(result: Result) -> list[Statement]:
    equal, margin, shuffled = measured(result, *ARMS)
    wrong, right = NOISES
    return [
        larger("wrong labels: above equal", margin[wrong] - equal[wrong], than=0.02, unit=UNIT),
        larger(
            "wrong labels: above shuffled", margin[wrong] - shuffled[wrong], than=0.01, unit=UNIT
        ),
        absent("right labels: above equal", margin[right] - equal[right], within=0.01, unit=UNIT),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, accuracies) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], accuracies, arm, number)
    axes.set_ylim(0.75, 1.0)
    plotting.labelled(axes, "half of the labels random", "step", "test accuracy")


def weights_panel(axes: Axes, result: Result) -> None:
    for number, (label, means) in enumerate(result["weights"].items(), start=3):
        plotting.curve(axes, result["places"], means, f"label is {label}", number)
    axes.axhline(1.0, color="gray", linestyle=":")
    axes.set_ylim(0.0, 2.2)
    plotting.labelled(axes, "weights from the margin", "step", "mean weight of the samples")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, weights_panel)
