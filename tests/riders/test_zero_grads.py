"""zero_grads: every gradient is 0 after a step, also after one that was skipped."""

import pytest
import torch
from lib.runs import (
    advance,
    assert_same_bits,
    contents,
    give_gradient,
    needs_cpp,
    random_problem,
    run,
    start,
)

import lrfused


def assert_zeroed(run):
    for p in run.params:
        if p.grad is not None:
            assert_same_bits(p.grad, torch.zeros_like(p.grad))


def test_nothing_else_changes(backend, rule, rng):
    problem = random_problem(rng, [(), (65,), (5, 13), (0,)], 4)
    options = {"max_grad_norm": 0.5, "ema_decay": 0.5}
    got = run(problem, backend, zero_grads=True, **options)
    want = run(problem, backend, **options)
    mine, others = contents(got), contents(want)
    assert mine.keys() == others.keys()
    for name, tensor in mine.items():
        if not name.startswith("grad"):
            assert_same_bits(tensor, others[name], name)
    assert list(map(repr, got.metrics)) == list(map(repr, want.metrics))
    assert_zeroed(got)


def test_in_skipped_steps_and_before_a_group_starts(backend, rng):
    values = [torch.randn(70, generator=rng.torch) for _ in "ab"]
    groups = ({}, {"start_step": 9})
    made = start(values, backend, groups=groups, zero_grads=True, loss_scale="dynamic")
    for first in (1.0, torch.inf, torch.nan, 2.0):
        gradients = [torch.randn(70, generator=rng.torch) for _ in "ab"]
        gradients[0][3] = first
        advance(made, gradients)
        assert_zeroed(made)
    assert made.opt.metrics()["skipped_steps"] == 2
    assert_same_bits(made.params[1].detach(), values[1])


@pytest.mark.parametrize("what", ["gradient", "hyperparameter"])
def test_a_refused_step_leaves_the_gradients(backend, rng, what):
    made = start([torch.ones(9)], backend, zero_grads=True, nonfinite="raise")
    advance(made, [torch.ones(9)])
    bad = torch.full((9,), torch.inf if what == "gradient" else 1.0)
    if what == "hyperparameter":
        made.opt.param_groups[0]["weight_decay"] = torch.tensor(torch.nan)
    before = contents(made)
    with pytest.raises(RuntimeError):
        advance(made, [bad])
    assert_same_bits(made.params[0].grad, bad)
    assert_same_bits(made.params[0].detach(), before["p[0]"])


def test_gradients_that_lie_otherwise(backend, rng):
    """Of another layout, of another dtype, complex."""
    values = [torch.randn(4, 6, generator=rng.torch), torch.ones(5, dtype=torch.complex64)]
    made = start(values, backend, zero_grads=True)
    gradients = [torch.randn(6, 4, generator=rng.torch).t(), torch.ones(5, dtype=torch.complex64)]
    for p, g in zip(made.params, gradients, strict=True):
        give_gradient(p, g)
    made.opt.step()
    assert_zeroed(made)
    assert made.params[0].grad is gradients[0]


def test_backward_adds_to_zeros():
    """As after optimizer.zero_grad(set_to_none=False)."""
    model = torch.nn.Linear(3, 2)
    opt = lrfused.AdamW(model.parameters(), zero_grads=True)
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        assert model.bias.grad.tolist() == [1.0, 1.0]
        memory = model.bias.grad.data_ptr()
        opt.step()
    assert model.bias.grad.data_ptr() == memory


def test_not_with_write_grads():
    params = [torch.nn.Parameter(torch.ones(3))]
    with pytest.raises(ValueError, match="zero_grads"):
        lrfused.AdamW(params, zero_grads=True, write_grads=True)
    with pytest.raises(TypeError, match="zero_grads"):
        lrfused.AdamW(params, zero_grads=1)


# Gradients that share memory, where a step changes them


def views(memory, *starts):
    return [memory[first : first + 4] for first in starts]


@pytest.mark.parametrize("option", ["write_grads", "zero_grads"])
@pytest.mark.parametrize("late", [False, True], ids=["at first", "later"])
def test_gradients_that_share_memory_are_refused(backend, option, late):
    """Also in the fast path."""
    made = start([torch.ones(4) for _ in "abc"], backend, **{option: True})
    memory = torch.ones(12)
    if late:
        for _ in range(2):
            for p, g in zip(made.params, views(memory.fill_(1.0), 8, 0, 4), strict=True):
                p.grad = g
            made.opt.step()
    before = [p.detach().clone() for p in made.params]
    for p, g in zip(made.params, views(memory.fill_(1.0), 8, 0, 3), strict=True):
        p.grad = g
    with pytest.raises(ValueError, match=f"{option}=True"):
        made.opt.step()
    for p, want in zip(made.params, before, strict=True):
        assert_same_bits(p.detach(), want)
    assert bool((memory == 1).all())


@needs_cpp
@pytest.mark.parametrize("option", ["write_grads", "zero_grads"])
def test_the_fast_path_takes_gradients_that_are_changed(monkeypatch, option):
    made = start([torch.ones(4), torch.ones(())], "cpu", **{option: True})
    advance(made, [torch.ones(4), torch.ones(())])

    def slow(*_):
        raise AssertionError("the slow path")

    monkeypatch.setattr(made.opt._engine, "_slow_path", slow)
    for _ in range(2):
        for p in made.params:
            p.grad = torch.ones_like(p)
        made.opt.step()
    made.params[0].grad = made.params[0].grad[::1].as_strided((4,), (1,))
    made.opt.step()
