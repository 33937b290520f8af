"""Random models and gradients, runs of an optimizer over them, comparison by bits."""

import copy
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from lib.rules_for_steps import of_the_test
from lrfused import native
from lrfused.state.device_state import FIRST_FLOAT

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FEW = [(), (3,), (5, 13), (65,)]
SMALL = [(), (0,), (1,), (63,), (5, 13), (3, 2, 2, 2), (65,)]
EDGES = [(0, 3), (64,), (511,), (512,), (513,), (65535,), (65536,), (), (65537,), (3, 43691), (0,)]

needs_cpp = pytest.mark.skipif(native.cpu is None, reason=f"no C++ backend: {native.why_not_cpu}")
INSTRUCTION_SETS = native.cpu.instruction_sets() if native.cpu else []


def instruction_sets(backend: str) -> list[str]:
    """Those that a backend can be told to use."""
    return INSTRUCTION_SETS if backend == "cpu" else ["auto"]


def shorter(backend: str, steps: int, least: int = 3) -> int:
    """A run's length: interpreted kernels take a thousand times as long."""
    return max(steps // 10, least) if backend == "triton" else steps


# Models


@dataclass
class Problem:
    """A model's first values, and for each step its gradients (None: without one)."""

    values: list[torch.Tensor]
    gradients: list[list[torch.Tensor | None]]

    def map_gradients(self, change) -> "Problem":
        """The same with every gradient changed."""
        steps = [[None if g is None else change(g) for g in step] for step in self.gradients]
        return Problem(self.values, steps)


def random_problem(
    rng, shapes, steps, dtypes=(torch.float32,), gradient_dtypes=None, none=0.15, exponents=(-2, 1)
) -> Problem:
    """Normal values; gradients of a magnitude that changes from step to step.

    Without ``gradient_dtypes`` a gradient has its parameter's dtype. At the first step every
    parameter has a gradient, at the others at least one that has elements.
    """

    def normal(shape, dtype):
        return torch.randn(shape, generator=rng.torch, dtype=torch.float64).to(dtype)

    chosen = [dtypes[rng.numpy.integers(len(dtypes))] for _ in shapes]
    of_gradient = [
        gradient_dtypes[rng.numpy.integers(len(gradient_dtypes))] if gradient_dtypes else dtype
        for dtype in chosen
    ]
    values = [normal(shape, dtype) for shape, dtype in zip(shapes, chosen, strict=True)]
    full = [i for i, value in enumerate(values) if value.numel()]
    gradients = []
    for step in range(steps):
        size = 10.0 ** rng.numpy.uniform(*exponents)
        present = rng.numpy.random(len(shapes)) >= (none if step else 0.0)
        present[rng.numpy.choice(full)] = True
        gradients.append(
            [
                normal(shape, torch.float64).mul(size).to(dtype) if there else None
                for shape, dtype, there in zip(shapes, of_gradient, present, strict=True)
            ]
        )
    return Problem(values, gradients)


def parameters(values) -> list[torch.nn.Parameter]:
    """Parameters with copies of the values, which accept any gradient dtype."""
    made = []
    for value in values:
        parameter = torch.nn.Parameter(copy.deepcopy(value))
        if hasattr(parameter, "grad_dtype"):
            parameter.grad_dtype = None
        made.append(parameter)
    return made


def set_gradients(params, gradients) -> None:
    """Copies with the same strides, so that no other run sees what a step does to them."""
    for p, g in zip(params, gradients, strict=True):
        give_gradient(p, copy.deepcopy(g))


def give_gradient(parameter, gradient) -> None:
    """Also one of another dtype, which a torch without grad_dtype takes only in this way."""
    if gradient is None or gradient.dtype == parameter.dtype or hasattr(parameter, "grad_dtype"):
        parameter.grad = gradient
    else:
        parameter.grad = torch.empty_like(gradient, dtype=parameter.dtype)
        parameter.grad.data = gradient


def alternating(params, *options) -> list[dict[str, Any]]:
    """Parameters dealt out to as many groups as there are option dictionaries."""
    return [{"params": params[i :: len(options)], **chosen} for i, chosen in enumerate(options)]


# Runs


@dataclass
class Run:
    """What is left after some steps, and what was seen on the way."""

    params: list[torch.nn.Parameter]
    opt: Any
    metrics: list[dict[str, Any]] = field(default_factory=list)


def start(
    values, backend="reference", instruction_set="auto", groups=({},), masks=None, **options
) -> Run:
    """An optimizer of the test's rule before its first step.

    ``masks``, a function, returns the mask of a parameter, or None.
    """
    params, rule = parameters(values), of_the_test()
    options = {**rule.base, **options}
    opt = rule.optimizer(alternating(params, *groups), backend=backend, **options)
    opt._engine.instruction_set = instruction_set
    if masks is not None:
        opt.set_masks({p: masks(p) for p in params})
    opt.scale(torch.zeros(()))  # the gradients of these tests are scaled, or they know the scale
    return Run(params, opt)


def advance(run: Run, gradients) -> None:
    """One step."""
    set_gradients(run.params, gradients)
    run.opt.step()
    run.metrics.append(run.opt.metrics())


def run(problem: Problem, backend="reference", between=None, **options) -> Run:
    """All steps of a problem; ``between`` is called with the run after each."""
    started = start(problem.values, backend, **options)
    for gradients in problem.gradients:
        advance(started, gradients)
        if between is not None:
            between(started)
    return started


# Comparison by bits


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bit patterns as integers, with one pattern for all NaN."""
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    tensor = tensor.detach().contiguous()
    if not tensor.is_floating_point():
        return tensor
    tensor = torch.where(torch.isnan(tensor), torch.full_like(tensor, torch.nan), tensor)
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(integers[tensor.element_size()])


def assert_same_bits(got: torch.Tensor, want: torch.Tensor, name: str = "") -> None:
    """Equal in dtype, shape and every bit."""
    __tracebackhide__ = True
    assert (got.dtype, got.shape) == (want.dtype, want.shape), name
    different = torch.nonzero((bits(got) != bits(want)).reshape(-1)).reshape(-1)
    if len(different):
        i = int(different[0])
        a, b = bits(got).reshape(-1)[i], bits(want).reshape(-1)[i]
        pytest.fail(
            f"{name} {got.dtype} {tuple(got.shape)}: {len(different)} differ, first at {i}: "
            f"{int(a):#x} is not {int(b):#x}"
        )


def contents(run: Run) -> dict[str, torch.Tensor]:
    """Parameters, gradients, moments and counts, copied."""
    tensors = {}
    for i, p in enumerate(run.params):
        tensors[f"p[{i}]"] = p
        if p.grad is not None:
            tensors[f"grad[{i}]"] = p.grad
        for key, value in run.opt.state.get(p, {}).items():
            tensors[f"{key}[{i}]"] = value
    state = run.opt._engine.bookkeeping.state(run.opt.param_groups)
    for name in ("counts", "steps", "carried"):
        tensors[name] = getattr(state.tensors, name)
    tensors["loss_scale"] = state.loss_scale
    return {name: x.detach().clone() for name, x in tensors.items() if x is not None}


def words(run: Run) -> dict[str, torch.Tensor]:
    """The counters and metrics of the device state, copied."""
    state = run.opt._engine.bookkeeping.state(run.opt.param_groups)
    return {
        "integer words": state.words[:FIRST_FLOAT].clone(),
        "float words": state.floats[FIRST_FLOAT:].clone(),
    }


def assert_same_contents(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    """The same tensors with the same bits."""
    __tracebackhide__ = True
    assert got.keys() == want.keys()
    for name in want:
        assert_same_bits(got[name], want[name], name)


def assert_same_run(got: Run, want: Run, but: Collection[str] = ()) -> None:
    """Two runs left the same bits (but for some) and showed the same metrics at every step."""
    __tracebackhide__ = True
    for i, (mine, others) in enumerate(zip(got.metrics, want.metrics, strict=True)):
        assert repr(mine) == repr(others), f"metrics of call {i}"
    left = [{**contents(run), **words(run)} for run in (got, want)]
    assert_same_contents(*({k: v for k, v in one.items() if k not in but} for one in left))
    assert host_numbers(got) == host_numbers(want)


def assert_as_reference(problem: Problem, backend: str, **options) -> Run:
    """A backend, with every instruction set that it has, ends as the reference; its run."""
    __tracebackhide__ = True
    want = run(problem, **options)
    for name in instruction_sets(backend):
        got = run(problem, backend, instruction_set=name, **options)
        assert_same_run(got, want)
    return got


def host_numbers(run: Run) -> list[dict[str, Any]]:
    """What the groups show, apart from parameters and what only checkpoints read."""
    return [
        {k: v for k, v in group.items() if k != "params" and not k.startswith("lrfused")}
        for group in run.opt.param_groups
    ]


# Comparison within a bound


def assert_within(got, want, bound: float, scale=None, name: str = "") -> None:
    """|got - want| <= bound * scale everywhere; scale is |want| unless given."""
    __tracebackhide__ = True
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape, name
    scale = np.abs(want) if scale is None else np.asarray(scale, dtype=np.float64)
    wrong = ~(np.abs(got - want) <= bound * scale) & ~(np.isnan(got) & np.isnan(want))
    wrong &= got != want
    if wrong.any():
        worst = float(np.nanmax((np.abs(got - want) / scale)[wrong]))
        pytest.fail(f"{name}: {wrong.sum()} of {wrong.size} differ by up to {worst:.3g} x scale")


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    """A float64 copy on the host."""
    return tensor.detach().double().cpu().numpy().copy()
