"""torch.compile of the step: one graph, nothing compiled anew for a number, the eager step's bits.

aot_eager hands copies of everything that is written to the operator, inductor the tensors
themselves.
"""

import copy
import gc
import os
import shutil
import subprocess
import sys
import weakref

import pytest
import torch
from step.helpers import (
    advance,
    assert_same_bits,
    assert_same_contents,
    assert_same_run,
    contents,
    needs_cpp,
    parameters,
    random_problem,
    set_gradients,
    start,
)
from torch import Tensor, distributed
from torch._dynamo.utils import counters

import lrfused
from lrfused import schedules

SHAPES = [(5, 13), (), (3, 2, 2, 2), (0,), (65,)]


# Warnings of the compilers' own code.
pytestmark = [
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


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_cpp)])
@both_compilers
def test_fifty_scheduled_steps_are_one_graph_and_equal_eager(rng, compiler, backend):
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


@needs_cpp
@both_compilers
def test_the_table_is_kept(rng, compiler, monkeypatch):
    """The first compiled step builds the table of addresses, no other does; inductor hands over
    the optimizer's own tensors, so that nothing is copied.
    """
    problem = random_problem(rng, SHAPES, steps=6, none=0.0)
    run, _ = two_runs(problem.values, max_grad_norm=1.0)
    tables, cloned = [], []
    clone = Tensor.clone
    step = compiled(run.opt.step, compiler)
    for i, gradients in enumerate(problem.gradients):
        set_gradients(run.params, gradients)
        if i == 1:
            monkeypatch.setattr(Tensor, "clone", lambda t: cloned.append(1) or clone(t))
        step()
        tables.append(run.opt._engine._table)
    assert all(table is tables[0] for table in tables)
    assert bool(cloned) == (compiler == "aot_eager")


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


def test_a_group_added_between_steps_moves(rng):
    """add_param_group between compiled steps: the new parameters move, as in eager."""
    problem = random_problem(rng, [(3, 5), (7,), (2, 2)], steps=6, none=0.0)
    runs = []
    for is_compiled in (True, False):
        run, _ = two_runs(problem.values[:2], **scheduled(6))
        runs.append(run)
        step = compiled(run.opt.step) if is_compiled else run.opt.step
        for i, gradients in enumerate(problem.gradients):
            if i == 3:
                run.params.append(torch.nn.Parameter(problem.values[2].clone()))
                run.opt.add_param_group({"params": run.params[2:], "weight_decay": 0.0})
            with torch.compiler.set_stance("fail_on_recompile" if i > 3 else "default"):
                take(run, step, gradients[: len(run.params)])
    assert_same_run(*runs)


def test_a_checkpoint_loaded_between_steps_is_taken_up(rng):
    """load_state_dict between compiled steps: they go on from the checkpoint, as they go on after
    an eager step; nothing is compiled anew.
    """
    problem = random_problem(rng, SHAPES, steps=9, none=0.0)
    mine, eager = two_runs(problem.values, **scheduled(9))
    step = compiled(mine.opt.step)
    saved = []
    for i, gradients in enumerate(problem.gradients):
        for run in (mine, eager):
            if i == 3:
                saved.append(copy.deepcopy(run.opt.state_dict()))
            if i == 6:
                run.opt.load_state_dict(saved.pop(0))
        with torch.compiler.set_stance("fail_on_recompile" if i else "default"):
            take(mine, mine.opt.step if i == 4 else step, gradients)
        advance(eager, gradients)
    assert_same_run(mine, eager)
    assert mine.metrics[-1]["steps"] == 6


@both_compilers
def test_tensors_replaced_between_steps_are_used(rng, compiler):
    """Moments and the memory of parameters put in the place of others between compiled steps."""
    problem = random_problem(rng, [(3, 5), (7,)], steps=6, none=0.0)
    mine, eager = two_runs(problem.values, **scheduled(6))
    step = compiled(mine.opt.step, compiler)
    replaced = []
    for i, gradients in enumerate(problem.gradients):
        for run in (mine, eager):
            if i in (1, 4):
                state = run.opt.state[run.params[0]]
                replaced.append(weakref.ref(state["exp_avg"]))
                state["exp_avg"] = state["exp_avg"] * 0.5
                run.params[1].data = run.params[1].data + 0.25
            if i == 3:  # an eager step meanwhile makes another table
                run.opt.state[run.params[1]]["exp_avg_sq"] = torch.ones(7)
        with torch.compiler.set_stance("fail_on_recompile" if i else "default"):
            take(mine, mine.opt.step if i == 3 else step, gradients)
        advance(eager, gradients)
    assert_same_run(mine, eager)
    gc.collect()
    assert [ref() for ref in replaced] == [None] * 4  # nobody keeps what was replaced


@needs_cpp
@pytest.mark.parametrize("rebuilt", [False, True], ids=["same table", "new table"])
def test_the_operator_changes_what_it_is_given_and_nothing_else(rng, rebuilt):
    """Called with copies of everything, it leaves the optimizer's own tensors as they were. Where
    it has to build another table, the copies get the right values, too.
    """
    problem = random_problem(rng, SHAPES, steps=2, none=0.0)
    mine, eager = two_runs(problem.values, **scheduled(9))
    take(mine, compiled(mine.opt.step), problem.gradients[0])
    advance(eager, problem.gradients[0])
    if rebuilt:
        state = mine.opt.state[mine.params[0]]
        state["exp_avg"] = state["exp_avg"].clone()
    set_gradients(mine.params, problem.gradients[1])
    before = contents(mine)
    inner = mine.opt._inner
    params, state, moments = ([t.clone() for t in ts] for ts in (mine.params, *inner[1:3]))
    places, doubled = list(range(len(SHAPES))), [2 * p.grad for p in mine.params]
    torch.ops.lrfused.step(
        id(mine.opt), places, params, state, moments, [], [], doubled, None, None
    )
    advance(eager, [2 * g for g in problem.gradients[1]])
    for got, want in zip(params, eager.params, strict=True):
        assert_same_bits(got, want.detach())
    _, wanted_state, wanted_moments, _ = type(inner).of(eager.opt)
    for got, want in zip(state, wanted_state, strict=True):
        assert_same_bits(got, want)
    if not rebuilt:
        for got, want in zip(moments, wanted_moments, strict=True):
            assert_same_bits(got, want)
        assert_same_contents(contents(mine), before)


@both_compilers
@pytest.mark.parametrize("writes", [False, True], ids=["grads kept", "grads written"])
def test_the_operator_stands_where_it_was_written(rng, compiler, writes):
    """The same graph may read and write what the step does, before it and after: parameters,
    gradients, moments, the loss scale and a learning rate that is a tensor.
    """
    problem = random_problem(rng, [(3, 5), (7,)], steps=4, none=0.0)
    one = torch.ones(2)

    def function(run, lr):
        def call():
            # Vectors: inductor (torch 2.13) computes scalars after a later operator that writes.
            before = [p * 1 for p in run.params] + [run.opt.scale(one)]
            for p in run.params:
                p.grad.mul_(2)
            lr.mul_(0.5)
            run.opt.step()
            after = [p * 1 for p in run.params] + [run.opt.scale(one)]
            states = [run.opt.state[p] for p in run.params]
            moments = [state["exp_avg"] * 1 for state in states]
            counts = torch.stack([state["step"] for state in states])
            with torch.no_grad():
                for p, state in zip(run.params, states, strict=True):
                    p.mul_(1.25)
                    state["exp_avg"].mul_(0.5)
            lr.mul_(0.5)
            return before + after + moments + [counts] + [p.grad * 1 for p in run.params]

        return call

    rates = [torch.tensor(0.5), torch.tensor(0.5)]
    scale = lrfused.LossScale(init=64.0, growth_interval=1)
    options = {"loss_scale": scale, "max_grad_norm": 1.0, "write_grads": writes}
    mine, eager = (start(problem.values, "auto", lr=lr, **options) for lr in rates)
    call = compiled(function(mine, rates[0]), compiler)
    for gradients in problem.gradients:
        set_gradients(mine.params, gradients)
        set_gradients(eager.params, gradients)
        with torch.no_grad():
            wanted = function(eager, rates[1])()
            for i, (got, want) in enumerate(zip(call(), wanted, strict=True)):
                assert_same_bits(got, want, f"result {i}")
    assert_same_run(mine, eager)
    assert_same_bits(*rates)


def test_hooks_run_as_in_eager(rng):
    """Hooks are called once a step, in order, also those registered after the first compilation."""
    problem = random_problem(rng, [(3,)], steps=3, none=0.0)
    run, _ = two_runs(problem.values)
    calls = []
    step = compiled(run.opt.step)
    for i, gradients in enumerate(problem.gradients):
        set_gradients(run.params, gradients)
        step()
        if i == 0:
            run.opt.register_step_pre_hook(lambda *_: calls.append("before"))
            run.opt.register_step_post_hook(lambda *_: calls.append("after"))
    assert calls == ["before", "after"] * 2
    assert run.opt.metrics()["steps"] == 3


def test_a_subclass_with_its_own_step_has_its_hooks_called_once(rng):
    """torch wraps the subclass's step; the step of AdamW inside it calls no hooks again."""

    class Louder(lrfused.AdamW):
        def step(self, closure=None):
            for group in self.param_groups:
                for param in group["params"]:
                    param.grad.mul_(2)
            return super().step(closure)

    problem = random_problem(rng, [(3, 5)], steps=2, none=0.0)
    calls = []
    params, plain = parameters(problem.values), parameters(problem.values)
    mine, eager = Louder(params), lrfused.AdamW(plain)
    mine.register_step_pre_hook(lambda *_: calls.append("before"))
    step = compiled(mine.step)
    for gradients in problem.gradients:
        set_gradients(params, gradients)
        set_gradients(plain, [2 * g for g in gradients])
        step()
        eager.step()
    assert_same_bits(params[0].detach(), plain[0].detach())
    assert calls == ["before"] * 2


def test_torchs_scheduler_wraps_the_compiled_step(rng):
    """A torch LRScheduler wraps step, in a file that Dynamo skips, and writes lr between steps:
    there is one graph all the same.
    """
    problem = random_problem(rng, [(3, 5), (7,)], steps=8, none=0.0)
    runs = []
    for is_compiled in (True, False):
        run, _ = two_runs(problem.values, lr=0.1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(run.opt, 0.7)
        step = run.opt.step
        if is_compiled:
            step = torch.compile(step, backend="aot_eager")
        for i, gradients in enumerate(problem.gradients):
            with torch.compiler.set_stance("fail_on_recompile" if i else "default"):
                take(run, step, gradients)
            scheduler.step()
        runs.append(run)
    assert_same_run(*runs)
    assert graphs() == 1


def test_grad_scaler_hands_over_its_tensors(rng):
    """opt.step = torch.compile(opt.step) under torch's GradScaler, overflows among the steps."""
    problem = with_overflows(random_problem(rng, [(3, 5), (7,)], steps=8, none=0.0), every=3)
    runs = []
    for is_compiled in (True, False):
        run, _ = two_runs(problem.values, lr=0.1, max_grad_norm=1.0)
        if is_compiled:
            run.opt.step = compiled(run.opt.step)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
        scaler.scale(torch.ones(()))
        for i, gradients in enumerate(problem.gradients):
            set_gradients(run.params, gradients)
            with torch.compiler.set_stance("fail_on_recompile" if i else "default"):
                scaler.step(run.opt)
            scaler.update()
            run.metrics.append({**run.opt.metrics(), "scale": scaler.get_scale()})
        runs.append(run)
    assert_same_run(*runs)
    assert runs[0].metrics[-1]["skipped_steps"] == 2 and graphs() == 1


def test_scales_set_in_the_same_graph_are_used(rng):
    """grad_scale and found_inf set and deleted around the step inside the compiled function."""
    problem = random_problem(rng, [(3, 5), (7,)], steps=4, none=0.0)
    runs = two_runs(problem.values, lr=0.1, max_grad_norm=1.0)

    def function(opt):
        def call(scale, found):
            opt.grad_scale, opt.found_inf = scale * 2, found + found
            opt.step()
            del opt.grad_scale, opt.found_inf

        return call

    calls = compiled(function(runs[0].opt)), function(runs[1].opt)
    for i, gradients in enumerate(problem.gradients):
        scale, found = torch.tensor(2.0**i), torch.tensor(float(i == 2))
        for run, call in zip(runs, calls, strict=True):
            take(run, lambda call=call, s=scale, f=found: call(s, f), gradients)
            assert not hasattr(run.opt, "grad_scale") and not hasattr(run.opt, "found_inf")
    assert_same_run(*runs)
    assert runs[0].metrics[-1]["skipped_steps"] == 1


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


def test_closure_and_copies(rng):
    """A closure's loss comes back; a deep copy of the optimizer is compiled for itself."""
    problem = random_problem(rng, [(3, 5)], steps=3, none=0.0)
    mine, eager = two_runs(problem.values, lr=schedules.linear(0.1, 0.0, 9))
    step = compiled(mine.opt.step)
    for i, gradients in enumerate(problem.gradients):
        if i == 2:
            mine.params, mine.opt = copy.deepcopy((mine.params, mine.opt))
            left = mine.params[0].detach().clone()
            step = compiled(mine.opt.step)
        set_gradients(mine.params, gradients)
        assert step(lambda: torch.full((), 3.0)) == 3.0
        mine.metrics.append(mine.opt.metrics())
        advance(eager, gradients)
    assert_same_run(mine, eager)
    assert not torch.equal(mine.params[0], left)


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


def training_step(opt, model):
    """Forward, backward, step and zero_grad in one function."""

    def step(x):
        loss = model(x).square().mean()
        (opt.scale(loss) if isinstance(opt, lrfused.AdamW) else loss).backward()
        opt.step()
        opt.zero_grad()
        return loss

    return step


def test_a_compiled_training_step_breaks_no_more_than_with_torchs_adamw(rng):
    """Forward, backward, step, zero_grad in one function: no more graph breaks or graphs than with
    torch.optim.AdamW, and none of them compiled anew when the schedule moves.
    """
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    x = torch.randn(6, 4, generator=rng.torch)

    def training(optimizer, **options):
        twin = copy.deepcopy(model)
        opt = optimizer(twin.parameters(), **options)
        return opt, training_step(opt, twin)

    breaks, numbers = [], []
    for made in (training(torch.optim.AdamW), training(lrfused.AdamW, **scheduled(9))):
        torch._dynamo.reset()
        explained = torch._dynamo.explain(made[1])(x)
        breaks.append(explained.graph_break_count)
        numbers.append(explained.graph_count)
    assert breaks[1] <= breaks[0] and numbers[1] <= numbers[0]
    torch._dynamo.reset()
    (opt, step), (eager, plain) = (training(lrfused.AdamW, **scheduled(9)) for _ in range(2))
    step = torch.compile(step, backend="aot_eager")
    for i in range(9):
        with torch.compiler.set_stance("fail_on_recompile" if i else "default"):
            assert_same_bits(step(x), plain(x))
    assert opt.metrics() == eager.metrics()


def test_importing_lrfused_brings_no_compiler():
    """import brings no torch._dynamo; the operator comes when a step is traced, not before."""
    code = """if True:
        import sys, torch, lrfused
        assert "torch._dynamo" not in sys.modules
        param = torch.nn.Parameter(torch.ones(3))
        param.grad = torch.ones(3)
        lrfused.AdamW([param]).step()
        assert "lrfused.compiled" not in sys.modules
        assert not hasattr(torch.ops.lrfused, "step")
    """
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
