"""Synthetic images with objects to be found, the arithmetic of boxes, and average precision."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

SIDE, GRID, OBJECTS, KINDS, NOISE = 32, 8, 2, 2, 0.3
OVERLAP = 0.5  # that is a hit


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
