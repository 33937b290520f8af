"""How much of an lrfused step is the host's: the time outside the C++ call of its kernels."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import lrfused
from lrfused.backends.cpu.step import CpuStep


class Stopwatch:
    """Stands in for an object and adds up the time of its methods' calls."""

    def __init__(self, watched: Any):
        self.watched = watched
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.watched, name)
        return self._timed(attribute) if callable(attribute) else attribute

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - started

        return call


def kernel_share(
    optimizer: lrfused.FusedOptimizer, take_step: Callable[[], float], steps: int
) -> dict[str, float] | None:
    """Medians of the seconds of a step, and of those of them that measure, plan and apply take.

    The rest is Python and the walk over parameters and gradients, whatever that is written in.
    These steps are apart from the reported times: watching takes time, too. None where the
    kernels do not run.
    """
    table = optimizer._engine.table
    if table is None or not isinstance(table.run, CpuStep):
        return None
    side = table.run
    watch = Stopwatch(side.step)
    side.step = watch
    whole, kernels = [], []
    try:
        for _ in range(steps):
            watch.seconds = 0.0
            whole.append(take_step())
            kernels.append(watch.seconds)
    finally:
        side.step = watch.watched
    return {"step": median(whole), "kernels": median(kernels)}
