"""Detectors: a warmup gains more early precision for one stage than for two, at one learning rate.

A one-stage detector classifies every cell of a grid, and divides the sum by the few objects; a
two-stage one learns from a few sampled cells, and classifies the few boxes that these propose:

    one:  (sum_cells CE(kind or background) + sum_objects box) / objects
    two:  mean_sampled BCE(object or not) + mean_proposals CE(kind or background) + boxes

    gain = AP(with a warmup) - AP(without),     claimed: gain(one) > gain(two)

AP is the average precision at an overlap of 0.5 after the first 120 steps of SGD with momentum, on
images of 32 x 32 pixels with two bright or dark squares in noise, and a grid of 8 x 8 cells. The
warmup takes two thirds of them. The claim is tested at one learning rate for both, 0.03, and again
with each detector at its own limit, where it no longer learns without a warmup: 0.03 for one stage,
which still learns at 0.015, and 0.3 for two, which still learn at 0.1 (found with other seeds).

Control: a one-stage detector whose background is sampled, three cells for each object, as the
two-stage one's. At the common learning rate its gain must not differ from the two-stage detector's.

What holds: the difference is there at a common learning rate, and is gone when each has its own: a
two-stage detector at its limit gains as much. All cells of the background pull in one direction,
and their sum is divided by the few objects: the first gradients of the one-stage detector are about
40 times as large, and its limit is a tenth. So a warmup repairs a learning rate that is too large
for the beginning, and it is the scale of the loss, not the number of stages, that makes it so.
"""

from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

import lrfused
from lrfused import schedules

from .common import plotting
from .common.statistics import Statement, Values, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import batches, train

PROBLEM, SEEDS = 3146196, 12
SWAPPED = ("one-stage", "two-stage")
STEPS, BATCH, TRAINED, TESTED, EVERY = 120, 16, 1024, 64, 20
SIDE, GRID, OBJECTS, KINDS, NOISE, ANCHOR = 32, 8, 2, 2, 0.3, 5.0
FOUND, OVERLAP, NEGATIVES = 8, 0.5, 3  # boxes of an image; that is a hit; cells for an object
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


class Scenes(NamedTuple):
    """Images and their objects; a box is (x, y, half of the side) in pixels."""

    images: Tensor
    kinds: Tensor
    boxes: Tensor
    cell_labels: Tensor  # by cell: 0 for background, else kind + 1
    cell_boxes: Tensor

    def picked(self, indices: Tensor) -> "Scenes":
        return Scenes(*(part[indices] for part in self))


def scenes(count: int, generator: torch.Generator, device: torch.device) -> Scenes:
    centers = 4 + 24 * torch.rand(count, OBJECTS, 2, generator=generator)
    halves = 3 + 4 * torch.rand(count, OBJECTS, 1, generator=generator)
    kinds = torch.randint(KINDS, (count, OBJECTS), generator=generator)
    images = NOISE * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    inside = (torch.arange(SIDE) + 0.5 - centers[..., None]).abs() < halves[..., None]
    squares = inside[:, :, 1, :, None] & inside[:, :, 0, None, :]
    images += ((2 * kinds - 1)[..., None, None] * squares).sum(1, keepdim=True)
    boxes = torch.cat((centers, halves), -1)
    column, row = (centers / (SIDE / GRID)).long().unbind(-1)
    cells = row * GRID + column
    labels = torch.zeros(count, GRID * GRID, dtype=torch.long).scatter(1, cells, kinds + 1)
    cell_boxes = torch.zeros(count, GRID * GRID, 3)
    cell_boxes.scatter_(1, cells[..., None].expand(-1, -1, 3), boxes)
    parts = (images, kinds, boxes, labels, cell_boxes)
    return Scenes(*(part.to(device) for part in parts))


def decoded(base: Tensor, offset: Tensor) -> Tensor:
    """The box that lies at an offset from another, in units of that one's size."""
    half = base[..., 2:]
    grown = half * offset[..., 2:].clamp(-3.0, 3.0).exp()
    return torch.cat((base[..., :2] + offset[..., :2] * half, grown), -1)


def encoded(base: Tensor, box: Tensor) -> Tensor:
    half = base[..., 2:]
    return torch.cat(((box[..., :2] - base[..., :2]) / half, (box[..., 2:] / half).log()), -1)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every box of one list with every box of the other."""
    a, b = first[..., :, None, :], second[..., None, :, :]
    low = torch.maximum(a[..., :2] - a[..., 2:], b[..., :2] - b[..., 2:])
    high = torch.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = (high - low).clamp_min(0.0).prod(-1)
    return shared / ((2 * a[..., 2]) ** 2 + (2 * b[..., 2]) ** 2 - shared)


def gathered(values: Tensor, indices: Tensor) -> Tensor:
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))


class Grid(nn.Module):
    """Features of 8 x 8 cells, and some outputs and a box for each."""

    def __init__(self, outputs: int):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, width, stride in ((1, 8, 2), (8, 16, 2), (16, 32, 1), (32, 32, 1)):
            layers += [nn.Conv2d(inputs, width, 3, stride, 1), nn.LeakyReLU(0.2)]
        self.features, self.head = nn.Sequential(*layers), nn.Conv2d(32, outputs + 3, 1)
        middles = (torch.arange(GRID) + 0.5) * SIDE / GRID
        columns, rows = torch.meshgrid(middles, middles, indexing="xy")
        anchors = torch.stack((columns, rows, torch.full_like(rows, ANCHOR)), -1)
        self.register_buffer("anchors", anchors.view(-1, 3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features, outputs by cell, offsets of boxes by cell."""
        features = self.features(images)
        cells = self.head(features).flatten(2).transpose(1, 2)
        return features, cells[..., :-3], cells[..., -3:]

    def box_loss(self, offsets: Tensor, batch: Scenes) -> Tensor:
        """Summed over the objects' cells."""
        here = batch.cell_labels > 0
        wanted = encoded(self.anchors.expand_as(offsets), batch.cell_boxes)
        return functional.smooth_l1_loss(offsets[here], wanted[here], reduction="sum")

    @staticmethod
    def highest(scores: Tensor) -> tuple[Tensor, Tensor]:
        """The best cells, scores and indices, of those that no neighbour exceeds."""
        grid = scores.view(-1, 1, GRID, GRID)
        peaks = grid == functional.max_pool2d(grid, 3, 1, 1)
        return (scores * peaks.flatten(1)).topk(FOUND)


def sampled_cells(labels: Tensor) -> Tensor:
    """All cells with objects, and a few times as many of background."""
    here = labels > 0
    return here | (torch.rand(labels.shape, device=labels.device) < NEGATIVES * here.float().mean())


class OneStage(nn.Module):
    def __init__(self, sampled: bool = False):
        super().__init__()
        self.grid, self.sampled = Grid(1 + KINDS), sampled

    def loss(self, batch: Scenes) -> Tensor:
        _, logits, offsets = self.grid(batch.images)
        labels = batch.cell_labels
        kept = sampled_cells(labels) if self.sampled else torch.ones_like(labels, dtype=torch.bool)
        kinds = functional.cross_entropy(logits[kept], labels[kept], reduction="sum")
        return (kinds + self.grid.box_loss(offsets, batch)) / (labels > 0).sum()

    def detect(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, kinds and boxes."""
        _, logits, offsets = self.grid(images)
        scores, kinds = logits.softmax(-1)[..., 1:].max(-1)
        scores, cells = self.grid.highest(scores)
        boxes = decoded(self.grid.anchors.expand_as(offsets), offsets)
        return scores, kinds.gather(1, cells), gathered(boxes, cells)


class TwoStage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grid = Grid(1)
        self.refine = nn.Sequential(nn.Linear(32 * 9, 32), nn.ReLU(), nn.Linear(32, 1 + KINDS + 3))

    def proposals(self, objectness: Tensor, offsets: Tensor) -> Tensor:
        _, cells = self.grid.highest(objectness[..., 0].detach().sigmoid())
        return gathered(decoded(self.grid.anchors.expand_as(offsets), offsets.detach()), cells)

    def refined(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and offsets of boxes, from features at 3 x 3 points of each."""
        thirds = torch.linspace(-2 / 3, 2 / 3, 3, device=boxes.device)
        points = torch.stack(torch.meshgrid(thirds, thirds, indexing="xy"), -1).view(9, 2)
        points = (boxes[:, :, None, :2] + points * boxes[:, :, None, 2:]) * (2 / SIDE) - 1
        read = functional.grid_sample(features, points, align_corners=False)
        outputs = self.refine(read.permute(0, 2, 1, 3).flatten(2))
        return outputs[..., :-3], outputs[..., -3:]

    def loss(self, batch: Scenes) -> Tensor:
        features, objectness, offsets = self.grid(batch.images)
        here, kept = batch.cell_labels > 0, sampled_cells(batch.cell_labels)
        first = (
            functional.binary_cross_entropy_with_logits(objectness[kept][:, 0], here[kept].float())
            + self.grid.box_loss(offsets, batch) / here.sum()
        )
        boxes = torch.cat((self.proposals(objectness, offsets), batch.boxes), 1)
        best, match = overlaps(boxes, batch.boxes).max(-1)
        hit = best > OVERLAP
        labels = torch.where(hit, batch.kinds.gather(1, match) + 1, 0)
        logits, offsets = self.refined(features, boxes)
        wanted = encoded(boxes, gathered(batch.boxes, match))
        second = functional.smooth_l1_loss(offsets[hit], wanted[hit], reduction="sum") / hit.sum()
        return first + second + functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def detect(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, kinds and boxes."""
        features, objectness, offsets = self.grid(images)
        boxes = self.proposals(objectness, offsets)
        logits, offsets = self.refined(features, boxes)
        scores, kinds = logits.softmax(-1)[..., 1:].max(-1)
        return scores, kinds, decoded(boxes, offsets)


DETECTORS = {
    "one-stage": OneStage,
    "two-stage": TwoStage,
    "sampled": lambda: OneStage(sampled=True),
}


@torch.no_grad()
def average_precision(detector: nn.Module, tested: Scenes) -> float:
    """Over both kinds together; a box is a hit if it is the first to find its object."""
    scores, kinds, boxes = detector.detect(tested.images)
    right = overlaps(boxes, tested.boxes) * (kinds[..., None] == tested.kinds[:, None])
    best, match = right.max(-1)
    objects = (match + OBJECTS * torch.arange(len(match), device=match.device)[:, None]).flatten()
    order = scores.flatten().argsort(descending=True)
    found: set[int] = set()
    precisions: list[float] = []
    hits = (best.flatten() > OVERLAP)[order].tolist()
    for rank, (hit, number) in enumerate(zip(hits, objects[order].tolist(), strict=True)):
        if hit and number not in found:
            found.add(number)
            precisions.append(len(found) / (rank + 1))
    return sum(precisions) / tested.kinds.numel()


def run(seeds: list[int], device: torch.device) -> Result:
    rows = []
    curves: dict[str, list[list[float]]] = {}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
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
    precisions = [average_precision(detector, tested)]

    def after(step: int) -> None:
        if (step + 1) % EVERY == 0:
            precisions.append(average_precision(detector, tested))

    train(
        opt,
        lambda step: detector.loss(trained.picked(chosen[step])),
        STEPS,
        ceiling=1e6,
        after=after,
    )
    return precisions + [0.0] * (STEPS // EVERY + 1 - len(precisions))


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
