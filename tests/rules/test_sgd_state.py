"""What SGD has and has not in its state: allocation only, buffers taken away, numbers of torch."""

import copy

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

import lrfused
from lrfused import schedules as S
from lrfused.state.step_counts import Counts

from .sgd_runs import step

BACKENDS = ["reference", "cpu"]


# torch.distributed.checkpoint has state allocated by a step with lr 0 and zero gradients


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}], ids=["plain", "momentum"])
@pytest.mark.parametrize("scheduled", [False, True])
def test_saving_moves_and_counts_nothing(backend, options, scheduled, recwarn):
    """Each time: SGD without momentum never has the state that torch looks for."""
    model = torch.nn.Linear(2, 2)
    lr = S.linear(0.5, 0.1, steps=10) if scheduled else 0.5
    decay = {"weight_decay": 0.1, "weight_decay_mode": "independent"}
    opt = lrfused.SGD(model.parameters(), lr=lr, backend=backend, **decay, **options)
    for _ in range(3):
        step(opt, *model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        opt.zero_grad()
        get_optimizer_state_dict(model, opt)
    assert opt.metrics()["steps"] == 3
    assert opt.param_groups[0]["lr"] == (lr(3) if scheduled else lr)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    step(opt, *model.parameters())
    assert opt.metrics()["steps"] == 4 and not recwarn.list


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_gradients_and_a_schedule_at_zero_are_steps(backend):
    weight = torch.nn.Parameter(torch.ones(2))
    lr = S.join([S.linear(0.5, 0.0, steps=2), S.constant(0.25)], [4])
    opt = lrfused.SGD([weight], lr=lr, backend=backend)
    for _ in range(6):
        step(opt, weight, gradient=0.0)
    assert opt.metrics()["steps"] == 6
    opt.param_groups[0]["lr"] = 0.0
    step(opt, weight, gradient=0.0)  # as torch.distributed.checkpoint would do it
    opt.param_groups[0]["lr"] = 0.25  # which writes back what was there
    for _ in range(2):
        step(opt, weight, gradient=1.0)
    assert opt.metrics()["steps"] == 8


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupted_first_step_leaves_a_buffer_as_new(backend, monkeypatch):
    """Allocated, but not written: the next step's gradient is the first, which is not damped."""
    weight, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    opt = lrfused.SGD([weight], lr=0.5, momentum=0.5, dampening=0.25, backend=backend)
    plain = torch.optim.SGD([other], lr=0.5, momentum=0.5, dampening=0.25)
    bind = Counts.bind_one

    def interrupted(self, index, states):
        if states.get(weight):
            raise KeyboardInterrupt
        bind(self, index, states)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Counts, "bind_one", interrupted)
        step(opt, weight)
    assert "momentum_buffer" in opt.state[weight] and torch.equal(weight, torch.ones(2))
    for _ in range(2):
        step(opt, weight)
        step(plain, other)
    assert torch.equal(weight, other)


# Buffers that somebody takes away


TAKEN = {
    "clear": lambda opt, p: opt.state.clear(),
    "pop": lambda opt, p: opt.state.pop(p),
    "del": lambda opt, p: opt.state[p].pop("momentum_buffer"),
    "None": lambda opt, p: opt.state[p].update(momentum_buffer=None),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", TAKEN)
def test_after_a_buffer_was_taken_away_the_next_gradient_is_the_first(backend, how):
    options = {"lr": 0.5, "momentum": 0.5, "dampening": 0.5}
    found = []
    for make, own in ((lrfused.SGD, {"backend": backend}), (torch.optim.SGD, {})):
        weight = torch.nn.Parameter(torch.ones(2))
        opt = make([weight], **options, **own)
        for _ in range(3):
            step(opt, weight)
        TAKEN[how](opt, weight)
        for _ in range(2):
            step(opt, weight)
        found += [weight.detach(), opt.state[weight]["momentum_buffer"]]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])


def test_whether_it_was_written_travels_also_while_momentum_is_off():
    options = {"lr": 1.0, "momentum": 0.5, "dampening": 0.75, "nonfinite": "skip"}
    weight = torch.nn.Parameter(torch.zeros(2))
    opt = lrfused.SGD([weight], **options)
    step(opt, weight, gradient=float("nan"))
    opt.param_groups[0]["momentum"] = 0.0
    step(opt, weight)
    other = lrfused.SGD([torch.nn.Parameter(weight.detach().clone())], **options)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    other.param_groups[0]["momentum"] = 0.5
    (p,) = other.param_groups[0]["params"]
    step(other, p)
    assert other.state[p]["momentum_buffer"].tolist() == [1.0, 1.0]


def test_a_buffer_that_torch_went_on_with_counts_as_written():
    options = {"lr": 1.0, "momentum": 0.5, "dampening": 0.75}
    weight = torch.nn.Parameter(torch.zeros(2))
    opt = lrfused.SGD([weight], nonfinite="skip", **options)
    step(opt, weight, gradient=float("nan"))
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], **options)
    theirs.load_state_dict(copy.deepcopy(opt.state_dict()))
    step(theirs, *theirs.param_groups[0]["params"])
    opt.load_state_dict(copy.deepcopy(theirs.state_dict()))
    before = opt.state[weight]["momentum_buffer"].clone()
    step(opt, weight)
    assert torch.equal(opt.state[weight]["momentum_buffer"], before * 0.5 + 0.25)


# Tables


def test_gradients_that_come_in_turns_do_not_bind_anew():
    """Experts: without state there is nothing but having been used to tell a parameter by."""
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(8)]
    opt = lrfused.SGD(params, lr=0.1, backend="cpu")
    tables = set()
    kept = []
    for t in range(8):
        for i, p in enumerate(params):
            p.grad = torch.ones(3) if i % 2 == t % 2 else None
        opt.step()
        kept.append(opt._engine.table)
        tables.add(id(kept[-1]))
    assert len(tables) == 1


# Numbers in groups, as torch takes them


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("late", [{"momentum": 0.0}, {"dampening": 0.5}, {"momentum": 0.25}])
def test_numbers_written_late_with_nesterov_are_torchs_affair(backend, late):
    found = []
    for make in (lrfused.SGD, torch.optim.SGD):
        weight = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
        own = {"backend": backend} if make is lrfused.SGD else {}
        opt = make([weight], lr=0.25, momentum=0.5, nesterov=True, **own)
        step(opt, weight)
        opt.param_groups[0].update(late)
        for _ in range(3):
            step(opt, weight)
        found.append(weight.detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("key", ["momentum", "dampening"])
def test_a_numpy_array_of_one_element_is_a_number(backend, key):
    weight = torch.nn.Parameter(torch.zeros(2))
    opt = lrfused.SGD([weight], lr=1.0, momentum=0.5, backend=backend)
    step(opt, weight)
    opt.param_groups[0][key] = np.array([0.5])
    step(opt, weight)
    buffer = {"momentum": 1.5, "dampening": 1.0}[key]
    assert opt.state[weight]["momentum_buffer"].tolist() == [buffer] * 2


@pytest.mark.parametrize("key", ["momentum", "dampening"])
def test_other_arrays_are_refused_by_name(key):
    weight = torch.nn.Parameter(torch.zeros(2))
    opt = lrfused.SGD([weight], lr=1.0, momentum=0.5)
    step(opt, weight)
    opt.param_groups[0][key] = np.array([0.5, 0.5])
    with pytest.raises(TypeError, match=rf"param_groups\[0\]: {key} must be a number"):
        step(opt, weight)
