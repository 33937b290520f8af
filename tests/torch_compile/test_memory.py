"""What a compiled step reads and writes, and what lies elsewhere at the next one.

aot_eager hands copies of everything that is written to the operator, inductor the tensors
themselves.
"""

import copy
import gc
import weakref

import pytest
import torch
from lib.runs import (
    advance,
    assert_same_bits,
    assert_same_contents,
    assert_same_run,
    contents,
    needs_cpp,
    random_problem,
    set_gradients,
    start,
)
from torch import Tensor

import lrfused

from .helpers import (  # noqa: F401
    COMPILERS_WARNINGS,
    SHAPES,
    both_compilers,
    compiled,
    fresh_dynamo,
    scheduled,
    take,
    two_runs,
)

pytestmark = COMPILERS_WARNINGS


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
        tables.append(run.opt._engine.table)
    assert all(table is tables[0] for table in tables)
    assert bool(cloned) == (compiler == "aot_eager")


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
    _, wanted_state, wanted_moments, _, _ = type(inner).of(eager.opt, places)
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
