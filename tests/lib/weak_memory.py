"""Runs of translated kernels in a weak memory, in which races are looked for."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

from lib.on_ptx import CudaPtx, Kernels
from lib.runs import Problem, Run, advance, start


@contextlib.contextmanager
def weak(kernels: Kernels, seed: int, **how: Any) -> Iterator[list[Run]]:
    """Within it launches are checked; the list takes the runs whose memory there is.

    Raises:
        ptx.machine.PtxError: a kernel did something that it may not.
    """
    from ptx import machine, meant

    from lrfused.backends.cuda.step import CudaStep

    runs: list[Run] = []
    kernels.memory = lambda: _memory(runs)
    machine.seed(seed)
    with machine.checked(**how), contextlib.ExitStack() as undo:
        for library in kernels.libraries:
            meant.allow(library)
        if isinstance(kernels, CudaPtx):
            undo.callback(setattr, kernels, "overlaps", False)
            kernels.overlaps = True
            undo.callback(setattr, CudaStep, "run", CudaStep.run)
            CudaStep.run = _flushed(CudaStep.run, kernels)  # type: ignore[method-assign]
        undo.callback(setattr, kernels, "memory", None)
        yield runs


def _flushed(original: Any, kernels: CudaPtx) -> Any:
    def run(*arguments: Any) -> None:
        original(*arguments)
        kernels.flush()

    return run


def _memory(runs: Iterable[Run]) -> Iterator[Tensor]:
    """All that a step may touch, and nothing else."""
    for run in runs:
        table = run.opt._engine.table
        yield from table.run.uses._tensors
        yield from (tensor for tensor, _ in table.work.watched)
        yield from run.params
        states = (run.opt.state.get(p, {}).values() for p in run.params)
        yield from (x for state in states for x in state if isinstance(x, Tensor))
        yield from (p.grad for p in run.params if p.grad is not None)


def run_weak(
    problem: Problem,
    kernels: Kernels,
    backend: str,
    seed: int,
    how: Any,
    between: Callable[[Run], None] | None = None,
    **options: Any,
) -> Run:
    """All steps of a problem; what is done ``between`` them the host does."""
    with weak(kernels, seed, **how) as runs:
        made = start(problem.values, backend, **options)
        runs.append(made)
        for gradients in problem.gradients:
            advance(made, gradients)
            if between is not None:
                between(made)
    return made
