"""What GPU tests share: problems on a device, graphs, streams; in a dry run a CPU stands in.

There a graph's replay is the call once more, and streams and waiting are nothing.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from lib.runs import (
    Problem,
    Run,
    assert_same_contents,
    contents,
    give_gradient,
    host_numbers,
    run,
    start,
    words,
)

from .target import Target

# Problems


def on(device: torch.device, value: Any) -> Any:
    """A problem, or options, with copies of all tensors on a device; schedules are as they were."""
    if isinstance(value, torch.Tensor):
        return value.to(device, copy=True)
    if isinstance(value, Problem):
        return Problem(on(device, value.values), on(device, value.gradients))
    if isinstance(value, dict):
        return {name: on(device, part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(on(device, part) for part in value)
    return value


def run_on(target: Target, problem: Problem, **options: Any) -> Run:
    """All steps of a problem on the target."""
    return run(on(target.device, problem), target.backend, **on(target.device, options))


def start_on(target: Target, values: list[torch.Tensor], **options: Any) -> Run:
    """An optimizer on the target before its first step."""
    return start(on(target.device, values), target.backend, **on(target.device, options))


def fill(made: Run, gradients: list[torch.Tensor]) -> None:
    """New values in the gradients' own memory, which a captured graph reads."""
    for p, g in zip(made.params, gradients, strict=True):
        if p.grad is None:
            p.grad = torch.empty_like(p)
        p.grad.copy_(g)


def step_with(made: Run, gradients: list[torch.Tensor]) -> None:
    """A step over gradients where they lie; nothing is asked."""
    for p, g in zip(made.params, gradients, strict=True):
        give_gradient(p, g)
    made.opt.step()


def left(made: Run) -> dict[str, torch.Tensor]:
    """Everything that a run leaves, on the CPU."""
    found = {**contents(made), **words(made)}
    return {name: tensor.cpu() for name, tensor in found.items()}


def assert_same_end(got: Run, want: Run, but: Collection[str] = ()) -> None:
    """The same bits and metrics, wherever the runs were."""
    __tracebackhide__ = True
    assert repr(got.opt.metrics()) == repr(want.opt.metrics())
    mine, others = ({k: v for k, v in left(run).items() if k not in but} for run in (got, want))
    assert_same_contents(mine, others)
    assert host_numbers(got) == host_numbers(want)


def assert_same_everywhere(got: Run, want: Run) -> None:
    """Also the metrics of every step."""
    __tracebackhide__ = True
    for i, (mine, others) in enumerate(zip(got.metrics, want.metrics, strict=True)):
        assert repr(mine) == repr(others), f"metrics of call {i}"
    assert_same_end(got, want)


def reference_of(problem: Problem, backend: str = "reference", **options: Any) -> Run:
    """The same problem on the CPU."""
    return run(problem, backend, **options)


# Devices


def captured(call: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """What a call does, as a graph; calling it replays the graph."""
    if device.type == "cpu":
        return call
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


@contextlib.contextmanager
def nothing_waits(device: torch.device) -> Iterator[None]:
    """Whoever makes the host wait for the device gets an error."""
    if device.type == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def another_stream(device: torch.device, stream: Any = None) -> Iterator[None]:
    """A stream of its own for what is in here, after what came before, before what follows."""
    if device.type == "cpu":
        yield
        return
    outside, inside = torch.cuda.current_stream(), stream or torch.cuda.Stream()
    inside.wait_stream(outside)
    with torch.cuda.stream(inside):
        yield
    outside.wait_stream(inside)
