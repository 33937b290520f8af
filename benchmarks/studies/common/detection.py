"""Two small detectors on a grid of cells: of one stage, and of two."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .scenes import GRID, KINDS, OVERLAP, SIDE, Scenes, decoded, encoded, gathered, overlaps

ANCHOR, FOUND, NEGATIVES = 5.0, 8, 3  # half of a box; boxes of an image; cells for an object


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
