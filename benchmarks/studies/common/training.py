"""The training loop of the studies, and the points of a curve that are worth keeping."""

import sys
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

POINTS = 60  # of a curve, in result files and pictures


def train(
    opt: Optimizer,
    loss_of: Callable[[int], Tensor],
    steps: int,
    *,
    ceiling: float | None = None,
    after: Callable[[int], None] | None = None,
) -> list[float]:
    """``steps`` updates; returns the loss before each.

    Args:
        loss_of: the loss at a step, with a graph.
        ceiling: a loss above it, or nan, has diverged and ends the training: all later ones count
            as the ceiling, without a call of ``after``.
        after: called after each update with the step.

    Raises:
        RuntimeError: a loss is inf or nan, and there is no ceiling.
    """
    largest = sys.float_info.max if ceiling is None else ceiling
    losses: list[float] = []
    for step in range(steps):
        loss = loss_of(step)
        value = loss.item()
        if not value <= largest:
            if ceiling is None:
                raise RuntimeError(f"the loss at step {step} is {value}")
            return losses + [ceiling] * (steps - step)
        losses.append(value)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if after is not None:
            after(step)
    return losses


def every(steps: int, measure: Callable[[], float]) -> tuple[list[float], Callable[[int], None]]:
    """A list, and what fills it after every so many steps if it is given to `train`."""
    found: list[float] = []

    @torch.no_grad()
    def after(step: int) -> None:
        if (step + 1) % steps == 0:
            found.append(float(f"{measure():.6g}"))

    return found, after


def batches(count: int, size: int, steps: int, seed: int) -> Tensor:
    """Indices of random batches, steps x size: a pure function of the arguments."""
    return torch.randint(count, (steps, size), generator=stream(seed, "batches"))


def stream(seed: int, purpose: str) -> torch.Generator:
    """Random numbers that repeat no bits of another purpose, nor of ``torch.manual_seed(seed)``."""
    return torch.Generator().manual_seed(zlib.crc32(f"{purpose} {seed}".encode()))


def thinned(curve: Sequence[float], points: int = POINTS) -> list[float]:
    """Means over equal parts of a curve, in six digits; `places` says where they lie."""
    parts = np.array_split(np.asarray(curve, dtype=np.float64), min(points, len(curve)))
    return [float(f"{part.mean():.6g}") for part in parts]


def places(steps: int, points: int = POINTS) -> list[float]:
    """The middle of each of these parts, in steps."""
    return [float(part.mean()) for part in np.array_split(np.arange(steps), min(points, steps))]
