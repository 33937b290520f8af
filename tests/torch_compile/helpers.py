"""What the tests of torch.compile share: compilers that start afresh, runs compiled and eager."""

import os
import shutil

import pytest
import torch
from lib.runs import set_gradients, start
from torch._dynamo.utils import counters

import lrfused
from lrfused import schedules

SHAPES = [(5, 13), (), (3, 2, 2, 2), (0,), (65,)]

# Warnings of the compilers' own code.
COMPILERS_WARNINGS = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]
needs_inductor = pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler for inductor"
)
INDUCTOR = pytest.param("inductor", marks=needs_inductor)
both_compilers = pytest.mark.parametrize("compiler", ["aot_eager", INDUCTOR])


@pytest.fixture(autouse=True)
def fresh_dynamo():
    """Nothing compiled before; inductor in this process alone."""
    torch._dynamo.reset()
    counters.clear()
    with torch._inductor.config.patch(compile_threads=1):
        yield
    torch._dynamo.reset()


def graphs() -> int:
    """How many graphs were compiled in this test."""
    return counters["stats"]["unique_graphs"]


def compiled(function, compiler="aot_eager"):
    """The function as one graph."""
    return torch.compile(function, backend=compiler, fullgraph=True)


def two_runs(values, backend="auto", **options):
    """A run to be compiled and one that stays eager."""
    return start(values, backend, **options), start(values, backend, **options)


def take(run, step, gradients) -> None:
    """One step by this function, and the metrics after it."""
    set_gradients(run.params, gradients)
    step()
    run.metrics.append(run.opt.metrics())


def scheduled(total: int) -> dict:
    """Everything that changes from step to step, with dynamic loss scaling."""
    lr = schedules.warmup_cosine(0.01, warmup_steps=total // 8, total_steps=total)
    return {
        "lr": lr,
        "weight_decay": 0.1 * lr / 0.01,
        "betas": (0.9, schedules.linear(0.9, 0.999, total)),
        "max_grad_norm": 0.01,
        "loss_scale": lrfused.LossScale(init=64.0, growth_interval=7),
    }


def with_overflows(problem, every):
    """The problem with an infinite gradient now and then."""
    for step in range(every - 1, len(problem.gradients), every):
        gradient = next(g for g in problem.gradients[step] if g is not None and g.numel())
        gradient.view(-1)[0] = torch.inf
    return problem
