"""Providers take turns in every round, in another order each time; medians and their spread."""

import gc
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from data import Data
from device import Device
from torch.nn import Parameter


@dataclass
class Contestant:
    """A verified pipeline with its parameters, and the median of each of its turns in seconds."""

    step: Callable[[], Any]
    params: list[Parameter]
    data: Data
    turns: list[float] = field(default_factory=list)
    steps_taken: int = 0

    def take_step(self, device: Device) -> float:
        """Seconds of a step on new gradients; writing them is the backward pass's work."""
        self.write_gradients()
        return device.seconds(self.step)

    def write_gradients(self) -> None:
        self.data.write_gradients(self.params, self.steps_taken)
        self.steps_taken += 1

    def take_turn(self, device: Device) -> None:
        workload = self.data.case.workload
        for _ in range(workload.untimed_steps):
            self.take_step(device)
        self.turns.append(median(self.take_step(device) for _ in range(workload.timed_steps)))


def compete(
    contestants: dict[str, Contestant],
    rounds: int,
    device: Device,
    before_round: Callable[[], Any],
    seed: int = 0,
) -> Iterator[str]:
    """Let all take a turn in every round: whatever else the machine does slows all of them.

    Yields:
        The name of the provider whose turn is over.
    """
    order, generator = list(contestants), random.Random(seed)
    gc.collect()
    gc.disable()
    try:
        for contestant in contestants.values():
            contestant.take_step(device)
        for _ in range(rounds):
            before_round()
            generator.shuffle(order)
            for name in order:
                contestants[name].take_turn(device)
                yield name
    finally:
        gc.enable()


@dataclass(frozen=True)
class Spread:
    """The median, and the first and the last decile: eight rounds of ten lie between these."""

    median: float
    lower: float
    upper: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        if not values:
            raise ValueError("values: must not be empty")
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        deciles = quantiles(values, n=10, method="inclusive")
        return Spread(median(values), deciles[0], deciles[-1])


def ratio(times: list[float], ours: list[float]) -> Spread:
    """How many times as long the first takes, round by round."""
    return Spread.of([theirs / own for theirs, own in zip(times, ours, strict=True)])
