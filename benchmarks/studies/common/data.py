"""Real data that packages carry: scikit-learn's small sets, the Python library's sources."""

from dataclasses import dataclass
from functools import cache

import torch
from demo_data import Corpus, encode, read_sources
from sklearn import datasets
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Inputs and targets, in a fixed random order: the last quarter is for testing."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


@cache
def digits() -> Samples:
    """1797 images of 8 x 8 = 64 pixels in [0, 1], and which of 10 digits they show."""
    found = datasets.load_digits()
    return _split(torch.from_numpy(found.data).float() / 16.0, torch.from_numpy(found.target))


def mislabelled(count: int, share: float, generator: torch.Generator) -> tuple[Tensor, ...]:
    """A few digits: x, labels of which a share was drawn at random, and where these are wrong."""
    samples = digits()
    chosen = torch.randperm(len(samples.x), generator=generator)[:count]
    is_random = torch.rand(count, generator=generator) < share
    drawn = torch.randint(10, (count,), generator=generator)
    y = torch.where(is_random, drawn, samples.y[chosen])
    return samples.x[chosen], y, y != samples.y[chosen]


@cache
def table(name: str) -> Samples:
    """A table of scikit-learn (wine, breast_cancer, diabetes, iris), each column standardised."""
    found = getattr(datasets, f"load_{name}")()
    x, y = torch.from_numpy(found.data).float(), torch.from_numpy(found.target)
    x = (x - x.mean(0)) / x.std(0)
    if y.is_floating_point():
        y = ((y - y.mean()) / y.std()).float()
    return _split(x, y)


@cache
def text() -> Corpus:
    """The Python library's sources as characters."""
    return encode(read_sources())


def _split(x: Tensor, y: Tensor) -> Samples:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y, train = x[order], y[order], len(x) * 3 // 4
    return Samples(x[:train], y[:train], x[train:], y[train:])
