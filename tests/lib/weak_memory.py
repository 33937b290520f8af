"""Runs of translated kernels in a weak memory, in which races are looked for."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

from lib.emulation_build import CSRC
from lib.on_ptx import CudaPtx, Kernels
from lib.runs import Problem, Run, advance, start

# Races that are meant: what stands in the lines of csrc/cuda on both sides, and why it is well.
THRESHOLDS_ARE_STORED = ("norms.cuh", "a.workspace.thresholds[2 * group + i % 2] =")
MEANT = {
    (THRESHOLDS_ARE_STORED, THRESHOLDS_ARE_STORED): "spans that share a group store the same",
    (THRESHOLDS_ARE_STORED, ("norms.cuh", "thresholds[")): "who loads them has stored the same",
}


def meant(kernels: CudaPtx) -> list[tuple[int, int]]:
    """The lines of PTX of those."""
    return [
        pair
        for first, second in MEANT
        for library in kernels.libraries
        for pair in itertools.product(_lines(library, *first), _lines(library, *second))
    ]


def _lines(library: Any, file: str, text: str) -> list[int]:
    """Where PTX comes from lines that have this text."""
    source = (CSRC / "cuda" / file).read_text().splitlines()
    places = {f"{file}:{i}" for i, line in enumerate(source, 1) if text in line}
    return [int(n) for n, chain in library.sources.items() if places & set(chain.split(" < "))]


@contextlib.contextmanager
def weak(kernels: Kernels, seed: int, **how: Any) -> Iterator[list[Run]]:
    """Within it launches are checked; the list takes the runs whose memory there is.

    Raises:
        ptx.machine.PtxError: a kernel did something that it may not.
    """
    from ptx import machine

    from lrfused.backends.cuda.step import CudaStep

    runs: list[Run] = []
    kernels.memory = lambda: _memory(runs)
    machine.seed(seed)
    pairs = meant(kernels) if isinstance(kernels, CudaPtx) else []
    with machine.checked(meant=pairs, **how), contextlib.ExitStack() as undo:
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
