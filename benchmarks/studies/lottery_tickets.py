"""Lottery tickets: the schedule that finds a ticket matters, not that the same one retrains it.

A ticket is a mask and the early weights that it is laid on. A network learns digits; of each hidden
matrix the largest weights are kept; from an early step on, only these are trained again:

    mask = |w(end)| > quantile(|w(end)|, 1 - keep),    w(early) * mask -> training with a schedule

Claim: a ticket of 2% of each hidden matrix is better than a random mask of as many. And it belongs
to its schedule: it is better retrained with that than with another, and each schedule does better
with its own ticket than with the other's. The two schedules have a low and a high peak, with which
the whole network learns equally well.

Control: if half of the weights are kept, the choice of the mask makes no difference.

What holds: the ticket is far better than a random mask, and one that was found with the high peak
loses accuracy with the low one, which has to have its own. But the ticket of the low peak gains
with the high one, and the high peak's own ticket is no better there. So a ticket need not be
retrained as it was found: one schedule is better to find tickets, another to retrain them. With
small steps, the weights end closer to the early ones, to which they are rewound, so that their
sizes at the end should say more of what is worth keeping; and 2% of the weights need large steps
to get far enough in as many updates.
"""

from collections.abc import Callable, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lrfused
from lrfused import schedules

from .common import plotting
from .common.data import digits
from .common.models import accuracy, mlp
from .common.statistics import Statement, Values, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import batches, stream, train

PROBLEM, SEEDS = 3188081, 16
SWAPPED = ("random mask", "own ticket")
STEPS, EARLY, BATCH, WIDTH = 300, 10, 64, 64
PEAKS = {"low": 0.1, "high": 0.3}
KEEP, CONTROL = 0.02, 0.5
ARMS = ("own ticket", "other's ticket", "random mask")
ALL, UNIT = ("whole network", *ARMS), "percentage points"


def recipe(opt, weights, early, keep):
    """early = opt.snapshot() after a few steps, then opt was trained to the end."""
    with torch.no_grad():
        masks = {w: w.abs() > w.abs().quantile(1.0 - keep) for w in weights}
    opt.set_masks(masks)
    opt.rewind(early)
    return masks


class Training:
    """A network, its optimizer and its batches: all follow from the peak and the seed."""

    def __init__(self, peak: str, seed: int, device: torch.device):
        torch.manual_seed(seed)
        self.model = mlp([64, WIDTH, WIDTH, 10]).to(device)
        lr = schedules.warmup_cosine(PEAKS[peak], STEPS // 10, STEPS)
        self.opt = lrfused.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        data = digits()
        self.x, self.y = data.x.to(device), data.y.to(device)
        self.test = data.test_x.to(device), data.test_y.to(device)
        self.chosen = batches(len(self.x), BATCH, STEPS, seed).to(device)

    @property
    def weights(self) -> list[nn.Parameter]:
        """The matrices that are pruned: all but the last."""
        return [param for param in self.model.parameters() if param.ndim == 2][:-1]

    def go_on(self, steps: int) -> None:
        first = self.opt.known_step

        def loss(step: int) -> Tensor:
            chosen = self.chosen[first + step]
            return cross_entropy(self.model(self.x[chosen]), self.y[chosen])

        train(self.opt, loss, steps)

    def result(self) -> float:
        self.go_on(STEPS - self.opt.known_step)
        return 100.0 * accuracy(self.model, *self.test)


class Found:
    """What one schedule finds: the early weights, the masks, and the accuracies."""

    def __init__(self, peak: str, keep: float, seed: int, device: torch.device):
        training = Training(peak, seed, device)
        training.go_on(EARLY)
        self.early = training.opt.snapshot()
        self.whole = training.result()
        self.masks = list(recipe(training.opt, training.weights, self.early, keep).values())
        self.own = training.result()
        self._rest = (seed, device)

    def with_schedule(self, peak: str) -> float:
        """The ticket, retrained with the schedule of another peak."""
        return self._retrained(peak, self.masks)

    def with_random_masks(self, peak: str) -> float:
        generator = stream(self._rest[0], "random masks")
        orders = [torch.randperm(mask.numel(), generator=generator) for mask in self.masks]
        shuffled = [
            mask.flatten()[order.to(mask.device)].view_as(mask)
            for mask, order in zip(self.masks, orders, strict=True)
        ]
        return self._retrained(peak, shuffled)

    def _retrained(self, peak: str, masks: list[Tensor]) -> float:
        training = Training(peak, *self._rest)
        training.opt.set_masks(dict(zip(training.weights, masks, strict=True)))
        training.opt.rewind(self.early)
        return training.result()


def run(seeds: list[int], device: torch.device) -> Result:
    rows = []
    for seed in seeds:
        row = {arm: {} for arm in ALL}
        for keep, suffix in ((KEEP, ""), (CONTROL, ", control")):
            found = {peak: Found(peak, keep, seed, device) for peak in PEAKS}
            for peak, other in (("low", "high"), ("high", "low")):
                name = peak + suffix
                row["whole network"][name] = found[peak].whole
                row["own ticket"][name] = found[peak].own
                row["other's ticket"][name] = found[other].with_schedule(peak)
                row["random mask"][name] = found[peak].with_random_masks(peak)
        rows.append(row)
    return {"arms": collect(rows)}


def check(result: Result) -> list[Statement]:
    own, other, random = measured(result, *ARMS)

    def same(text: str, values: Values) -> Statement:
        return absent(f"half kept: {text}", values, within=1.5, unit=UNIT)

    def points(
        kind: Callable[..., Statement], text: str, values: Values, than: float = 1.0
    ) -> Statement:
        return kind(text, values, than=than, unit=UNIT)

    return [
        points(larger, "better than a random mask", own["low"] - random["low"], than=5.0),
        points(larger, "high ticket: better with its schedule", own["high"] - other["low"]),
        points(larger, "low ticket: better with its schedule", own["low"] - other["high"]),
        points(larger, "low schedule: better with its ticket", own["low"] - other["low"]),
        points(larger, "high schedule: better with its ticket", own["high"] - other["high"]),
        points(instead, "low ticket: better with the other's schedule", other["high"] - own["low"]),
        same("no better than random", own["low, control"] - random["low, control"]),
        same("no better than the other's", own["low, control"] - other["low, control"]),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    _accuracies(axes, result, ["low", "high", "low, control", "high, control"], ALL)
    axes.set_xticklabels(
        [f"{peak},\n{keep:.0%} kept" for keep in (KEEP, CONTROL) for peak in PEAKS]
    )
    axes.set_title("tickets, and a random mask")


def tickets_panel(axes: Axes, result: Result) -> None:
    _accuracies(axes, result, list(PEAKS), ALL[:-1])
    axes.set_title(f"{KEEP:.0%} kept, without the random mask")


def _accuracies(axes: Axes, result: Result, names: list[str], arms: Sequence[str]) -> None:
    plotting.bars(axes, names, {arm: [result["arms"][arm][name] for name in names] for arm in arms})
    plotting.labelled(axes, "", "peak of retraining", "test accuracy, %")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, tickets_panel)
