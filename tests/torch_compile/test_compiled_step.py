"""torch.compile of the step: one graph, never compiled anew for a number, the eager step's bits."""

import copy
import subprocess
import sys

import pytest
import torch
from lib.emulating import cuda, emulation  # noqa: F401 (fixtures)
from lib.every_backend import backend, cuda_ptx, triton_ptx  # noqa: F401 (a fixture, which tests take by its name)
from lib.runs import (
    advance,
    assert_same_bits,
    assert_same_contents,
    assert_same_run,
    contents,
    random_problem,
    set_gradients,
)
from torch import Tensor, distributed

import lrfused
from lrfused import schedules

from .helpers import (  # noqa: F401
    COMPILERS_WARNINGS,
    SHAPES,
    both_compilers,
    compiled,
    fresh_dynamo,
    graphs,
    scheduled,
    take,
    two_runs,
    with_overflows,
)

pytestmark = COMPILERS_WARNINGS


@both_compilers
def test_fifty_scheduled_steps_are_one_graph_and_equal_eager(rng, compiler, backend):  # noqa: F811
    """Schedule, clip, dynamic loss scale with skipped steps: one graph, never compiled anew, and
    bits, counters, metrics and mirrors as in eager, from the first step on, which makes the state.
    """
    problem = with_overflows(random_problem(rng, SHAPES, steps=50, none=0.0), every=9)
    groups = ({}, {"weight_decay": 0.3, "betas": (0.8, 0.99), "agc": 0.1})
    mine, eager = two_runs(problem.values, backend, groups=groups, **scheduled(50))
    step = compiled(mine.opt.step, compiler)
    rates = set()
    for i, gradients in enumerate(problem.gradients):
        with torch.compiler.set_stance("fail_on_recompile" if i else "default"):
            take(mine, step, gradients)
        advance(eager, gradients)
        rates.add(mine.opt.param_groups[0]["lr"])
    assert_same_run(mine, eager)
    assert graphs() == 1
    assert len(rates) > 40
    assert mine.metrics[-1]["skipped_steps"] == 5 and mine.metrics[-1]["clipped_steps"] > 0


@both_compilers
def test_missing_gradients_take_a_graph_each(rng, compiler):
    """Other gradients missing: another graph, and none for what was seen before. State is made with
    the first gradient, as in eager.
    """
    problem = random_problem(rng, [(3, 5), (7,), (2, 2)], steps=9, none=0.0)
    missing = (2, None, 2, 0, None, 2, 0, None, 2)
    for gradients, place in zip(problem.gradients, missing, strict=True):
        if place is not None:
            gradients[place] = None
    mine, eager = two_runs(problem.values, lr=schedules.linear(0.1, 0.0, 9), max_grad_norm=1.0)
    step = compiled(mine.opt.step, compiler)
    for i, gradients in enumerate(problem.gradients):
        with torch.compiler.set_stance("fail_on_recompile" if i > 5 else "default"):
            take(mine, step, gradients)
        advance(eager, gradients)
        assert len(mine.opt.state) == len(eager.opt.state)
    assert_same_run(mine, eager)


def test_no_gradient_at_all_is_no_step(rng):
    """Without a gradient nothing happens, and no operator is called."""
    run, _ = two_runs([torch.randn(3, generator=rng.torch)])
    compiled(run.opt.step)()
    assert not run.opt.state and graphs() == 0 and run.opt.metrics()["steps"] == 0


@both_compilers
def test_an_error_comes_out_and_nothing_has_changed(rng, compiler):
    """nonfinite="raise" raises out of the compiled call; the next step is as if it had not been."""
    problem = random_problem(rng, SHAPES, steps=4, none=0.0)
    bad = copy.deepcopy(problem.gradients[2])
    bad[0].view(-1)[3] = torch.nan
    mine, eager = two_runs(problem.values, nonfinite="raise", lr=schedules.linear(0.1, 0.0, 9))
    step = compiled(mine.opt.step, compiler)
    for i, gradients in enumerate(problem.gradients):
        if i in (0, 2):  # the very first step, too
            set_gradients(mine.params, bad)
            with pytest.raises(RuntimeError, match=rf"step {i}: a gradient is not finite"):
                step()
        take(mine, step, gradients)
        advance(eager, gradients)
    assert_same_contents(contents(mine), contents(eager))
    assert mine.metrics == eager.metrics


@both_compilers
@pytest.mark.parametrize(
    "options",
    [
        {"write_grads": True, "max_grad_norm": 0.1},
        {"amsgrad": True, "maximize": True},
        {"lr": schedules.constant(0.1) * schedules.input(torch.tensor(0.5), "temperature")},
    ],
    ids=["write_grads", "amsgrad", "input"],
)
def test_options(rng, compiler, options):
    """Gradients that are written, a third moment, a schedule that reads a tensor."""
    problem = random_problem(rng, SHAPES, steps=4, none=0.0)
    mine, eager = two_runs(problem.values, **options)
    step = compiled(mine.opt.step, compiler)
    for gradients in problem.gradients:
        take(mine, step, gradients)
        advance(eager, gradients)
    assert_same_run(mine, eager)
    assert graphs() == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_dtypes_and_layouts(rng, dtype):
    """Parameters that are transposed or have gaps, of every kind of number."""
    problem = random_problem(rng, [(3, 5), (4, 6)], 3, (torch.float32,), none=0.0)

    def changed(t):
        return (t.t() if t.shape[0] == 3 else t[:, ::2]).to(dtype)

    values = [changed(v) for v in problem.values]
    mine, eager = two_runs(values, lr=0.1, max_grad_norm=1.0)
    step = compiled(mine.opt.step)
    for gradients in problem.gradients:
        take(mine, step, [changed(g) for g in gradients])
        advance(eager, [changed(g) for g in gradients])
    assert_same_run(mine, eager)


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="no gloo here")
def test_a_dtensor_is_stepped_outside_the_graph(rng):
    """Parameters that are DTensors: a graph break, and the eager step."""
    from torch.distributed.tensor import Shard, distribute_tensor

    value, gradient = (torch.randn(5, 3, generator=rng.torch) for _ in range(2))
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        mine = torch.nn.Parameter(distribute_tensor(value.clone(), mesh, [Shard(0)]))
        mine.grad = distribute_tensor(gradient.clone(), mesh, [Shard(0)])
        plain = torch.nn.Parameter(value.clone())
        plain.grad = gradient.clone()
        torch.compile(lrfused.AdamW([mine], lr=0.1).step, backend="aot_eager")()
        lrfused.AdamW([plain], lr=0.1).step()
        assert_same_bits(mine.detach().to_local(), plain.detach())
    finally:
        distributed.destroy_process_group()


def test_what_cannot_be_compiled_runs_as_it_is():
    """Sparse gradients and subclasses of Tensor: the eager step's own errors; and where tracing
    fails, the eager step.
    """

    class Odd(Tensor):
        pass

    table = torch.nn.Embedding(4, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    odd = torch.nn.Parameter(torch.ones(3).as_subclass(Odd))
    odd.grad = torch.ones(3)
    for param, error in ((table.weight, "is sparse"), (odd, "type Odd")):
        step = torch.compile(lrfused.AdamW([param]).step, backend="eager")
        with pytest.raises((RuntimeError, TypeError), match=error):
            step()

    def not_while_tracing(*_):
        if torch.compiler.is_compiling():
            raise ValueError

    plain = torch.nn.Parameter(torch.ones(3))
    plain.grad = torch.ones(3)
    opt = lrfused.AdamW([plain], lr=schedules.linear(0.1, 0.0, 9))
    opt.register_step_pre_hook(not_while_tracing)
    torch.compile(opt.step, backend="eager")()
    assert opt.metrics()["steps"] == 1


@pytest.mark.parametrize("where", ["closure", "pre hook", "post hook"])
def test_the_engine_is_left_alone_where_a_trace_breaks(rng, where):
    """A closure or hook that is run between two graphs: the frames of the step are looked at one by
    one then, and the engine's are no arithmetic to be compiled."""
    problem = random_problem(rng, SHAPES, 3, none=0.0)
    mine, eager = two_runs(problem.values, lr=0.1, max_grad_norm=1.0)

    def breaking(*_):
        torch._dynamo.graph_break()

    if where == "pre hook":
        mine.opt.register_step_pre_hook(breaking)
    elif where == "post hook":
        mine.opt.register_step_post_hook(breaking)
    step = torch.compile(mine.opt.step, backend="eager")
    for gradients in problem.gradients:
        take(mine, (lambda: step(breaking)) if where == "closure" else step, gradients)
        advance(eager, gradients)
    assert_same_run(mine, eager)


def test_importing_lrfused_brings_no_compiler():
    """import brings no torch._dynamo; the operator comes when a step is traced, not before."""
    code = """if True:
        import sys, torch, lrfused
        assert "torch._dynamo" not in sys.modules
        param = torch.nn.Parameter(torch.ones(3))
        param.grad = torch.ones(3)
        lrfused.AdamW([param]).step()
        assert "lrfused.optim.torch_compile" not in sys.modules
        assert not hasattr(torch.ops.lrfused, "step")
    """
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
