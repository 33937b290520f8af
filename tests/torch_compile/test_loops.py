"""A compiled step among hooks, subclasses, schedulers, scalers, copies and whole training steps."""

import copy

import torch
from lib.runs import (
    advance,
    assert_same_bits,
    assert_same_run,
    parameters,
    random_problem,
    set_gradients,
)

import lrfused
from lrfused import schedules

from .helpers import (  # noqa: F401
    COMPILERS_WARNINGS,
    compiled,
    fresh_dynamo,
    graphs,
    scheduled,
    take,
    two_runs,
    with_overflows,
)

pytestmark = COMPILERS_WARNINGS


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
