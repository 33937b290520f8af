"""What the studies share: training loops, data, boxes and average precision."""

import math

import numpy as np
import pytest
import torch
from lib.benchmarks import BENCHMARKS  # noqa: F401  (puts the studies on the path)

# isort: split
from studies.common import data, models
from studies.common.scenes import (
    GRID,
    OBJECTS,
    Scenes,
    average_precision,
    decoded,
    encoded,
    overlaps,
    scenes,
)
from studies.common.training import batches, every, places, stream, thinned, train

import lrfused


def quadratic(lr: float):
    x = torch.nn.Parameter(torch.ones(()))
    return x, lrfused.SGD([x], lr=lr), lambda step: x * x


def test_losses_are_those_before_each_update():
    x, opt, loss = quadratic(0.25)
    seen: list[int] = []
    assert train(opt, loss, 3, after=seen.append) == [1.0, 0.25, 0.0625]
    assert (x.item(), seen) == (0.125, [0, 1, 2])


def test_a_divergence_ends_the_training_at_the_ceiling():
    x, opt, loss = quadratic(2.0)
    seen: list[int] = []
    assert train(opt, loss, 5, ceiling=100.0, after=seen.append) == [1.0, 9.0, 81.0, 100.0, 100.0]
    assert (x.item(), seen) == (-27.0, [0, 1, 2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_divergence_that_was_not_expected_is_an_error(bad):
    _, opt, loss = quadratic(0.25)
    with pytest.raises(RuntimeError, match=f"the loss at step 1 is {bad}"):
        train(opt, lambda step: loss(step) * (bad if step else 1.0), 3)


def test_measurements_are_taken_after_every_so_many_steps():
    values = iter([1.23456789, 2.0])
    found, after = every(3, lambda: next(values))
    for step in range(7):
        after(step)
    assert found == [1.23457, 2.0]


@pytest.mark.parametrize(("steps", "points"), [(1, 60), (7, 3), (60, 60), (1000, 60)])
def test_a_thinned_curve_keeps_its_mean_and_a_line_stays_one(steps, points):
    found, x = thinned(range(steps), points), places(steps, points)
    assert len(found) == len(x) == min(steps, points)
    assert found == pytest.approx(x, rel=1e-5)
    weights = [len(part) for part in np.array_split(np.arange(steps), len(x))]
    assert np.average(found, weights=weights) == pytest.approx((steps - 1) / 2, rel=1e-5)


def test_random_numbers_depend_on_seed_and_purpose_and_not_on_torchs():
    def drawn(*key):
        return torch.rand(50, generator=stream(*key)).tolist()

    torch.manual_seed(3)
    others = [drawn(3, "b"), drawn(4, "a"), torch.rand(50).tolist()]
    assert drawn(3, "a") == drawn(3, "a")
    assert drawn(3, "a") not in others
    assert torch.equal(batches(10, 4, 5, 3), batches(10, 4, 5, 3))
    assert batches(10, 4, 5, 3).shape == (5, 4)


def test_mislabelled_digits_are_wrong_where_it_says_so():
    x, y, wrong = data.mislabelled(400, 0.5, stream(0, "labels"))
    samples = data.digits()
    rows = {tuple(row.tolist()): label for row, label in zip(samples.x, samples.y, strict=True)}
    right = torch.stack([rows[tuple(row.tolist())] for row in x])
    assert torch.equal(wrong, y != right)
    assert 0.35 < wrong.float().mean() < 0.55  # a tenth of the random labels is right
    assert not data.mislabelled(100, 0.0, stream(0, "labels"))[2].any()


def test_samples_for_testing_are_not_those_for_training():
    for samples, count in ((data.digits(), 1797), (data.table("wine"), 178)):
        assert len(samples.x) + len(samples.test_x) == count
    digits = data.digits()
    train_rows = {tuple(row.tolist()) for row in digits.x}
    assert sum(tuple(row.tolist()) in train_rows for row in digits.test_x) <= 1  # equal images


def test_accuracy_is_measured_in_eval_mode_and_leaves_the_mode():
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Identity())
    x = torch.eye(4)
    assert models.accuracy(model, x, torch.tensor([0, 1, 2, 0])) == 0.75
    assert model.training


# Detection


def test_overlaps_of_boxes_that_can_be_counted():
    first = torch.tensor([[[2.0, 2.0, 2.0]]])
    second = torch.tensor([[[2.0, 2.0, 2.0], [4.0, 2.0, 2.0], [2.0, 2.0, 1.0], [9.0, 9.0, 1.0]]])
    assert overlaps(first, second)[0, 0].tolist() == pytest.approx([1.0, 8 / 24, 4 / 16, 0.0])


def test_an_encoded_box_is_decoded():
    base = torch.tensor([[4.0, 6.0, 5.0]])
    box = torch.tensor([[7.5, 3.0, 2.0]])
    assert torch.allclose(decoded(base, encoded(base, box)), box)


def test_scenes_show_their_objects_and_label_their_cells():
    made = scenes(20, stream(0, "images"), torch.device("cpu"))
    for image, kinds, boxes, labels in zip(
        made.images, made.kinds, made.boxes, made.cell_labels, strict=True
    ):
        x, y, _ = boxes[0].long().tolist()
        other = overlaps(boxes[:1], boxes[1:]).item()
        if other == 0.0:
            assert (image[0, y, x] > 0) == bool(kinds[0])
        cell = (y // (32 // GRID)) * GRID + x // (32 // GRID)
        assert labels[cell] > 0
        assert 1 <= (labels > 0).sum() <= OBJECTS


class Told(torch.nn.Module):
    """A detector that says what it is told."""

    def __init__(self, scores, kinds, boxes):
        super().__init__()
        self.said = (scores, kinds, boxes)

    def detect(self, images):
        return self.said


def one_scene() -> Scenes:
    boxes = torch.tensor([[[8.0, 8.0, 3.0], [24.0, 24.0, 4.0]]])
    kinds = torch.tensor([[0, 1]])
    empty = torch.zeros(1, GRID * GRID)
    return Scenes(torch.zeros(1, 1, 32, 32), kinds, boxes, empty.long(), empty[..., None])


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([(0.9, 0, 0), (0.8, 1, 1)], 1.0),
        ([(0.9, 0, 0)], 0.5),
        ([(0.9, 1, 0), (0.8, 1, 1)], 0.25),  # the first is of the wrong kind: precision 1/2
        ([(0.9, 0, 0), (0.8, 0, 0), (0.7, 1, 1)], (1 + 2 / 3) / 2),  # found twice counts once
        ([(0.1, 0, 0), (0.8, 1, 1)], 1.0),
        ([(0.9, 0, None)], 0.0),
    ],
)
def test_average_precision_of_one_scene(found, wanted):
    scene = one_scene()
    nowhere = torch.tensor([16.0, 4.0, 1.0])
    boxes = torch.stack([nowhere if at is None else scene.boxes[0, at] for _, _, at in found])
    scores = torch.tensor([[score for score, _, _ in found]])
    kinds = torch.tensor([[kind for _, kind, _ in found]])
    assert average_precision(Told(scores, kinds, boxes[None]), scene) == pytest.approx(wanted)
