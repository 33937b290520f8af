"""One group a tensor, as for layer-wise learning rates: construction, first step, save and load."""

import functools
from collections.abc import Callable
from typing import Any

from change_sides import OURS, REFERENCE, SETTINGS, adamw, deviation, parameters
from device import Cpu
from pipelines import warmup_cosine
from torch.optim.lr_scheduler import LambdaLR

from lrfused import schedules

DEVICE = Cpu()
PARTS = ("construct", "first step", "save", "load")
SIZE = 16


class Training:
    """A side's optimizer and, where the groups have schedules, torch's scheduler beside it."""

    def __init__(self, side: str, scheduled: bool, groups: list[dict[str, Any]]):
        self.optimizer = adamw(side, groups, SETTINGS.lr)
        self.scheduler = None
        if scheduled and side != OURS:
            factor = functools.partial(warmup_cosine, settings=SETTINGS)
            self.scheduler = LambdaLR(self.optimizer, [factor] * len(groups))

    def step(self) -> None:
        self.optimizer.step()
        if self.scheduler:
            self.scheduler.step()

    def save(self) -> list[Any]:
        return [part.state_dict() for part in (self.optimizer, self.scheduler) if part]

    def load(self, saved: list[Any]) -> None:
        self.optimizer.load_state_dict(saved[0])
        if self.scheduler:
            self.scheduler.load_state_dict(saved[1])


class ManyGroups:
    """A turn: a new optimizer over new parameters, and one call of each."""

    def __init__(self, scheduled: bool, side: str, groups: int):
        self._scheduled, self._side, self._groups = scheduled, side, groups
        self._last: Training | None = None

    def turn(self) -> dict[str, float]:
        """Seconds of each part."""
        self._last = None
        groups = self._lists(self._side)
        times = {}
        made, times["construct"] = _timed(lambda: Training(self._side, self._scheduled, groups))
        _, times["first step"] = _timed(made.step)
        saved, times["save"] = _timed(made.save)
        _, times["load"] = _timed(lambda: made.load(saved))
        self._last = made
        return times

    def check(self) -> float:
        """Deviation after a step from what was loaded."""
        assert self._last is not None
        expected = Training(REFERENCE, self._scheduled, self._lists(REFERENCE))
        expected.step()
        for training in (self._last, expected):
            training.step()
        return deviation(self._last.optimizer, expected.optimizer, 2)

    def _lists(self, side: str) -> list[dict[str, Any]]:
        params = parameters(side, self._groups, SIZE)
        lrs = [SETTINGS.lr * (1.0 - i / self._groups / 2) for i in range(self._groups)]
        return [
            {"params": [param], "lr": _schedule(lr) if self._scheduled and side == OURS else lr}
            for param, lr in zip(params, lrs, strict=True)
        ]


def _schedule(lr: float) -> Any:
    steps = SETTINGS.warmup_steps, SETTINGS.total_steps
    return schedules.warmup_cosine(lr, *steps, start="1/n")


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    found: list[Any] = []
    seconds = DEVICE.seconds(lambda: found.append(call()))
    return found[0], seconds
