"""A load is whole or nothing: what it leaves when it is refused, or interrupted."""

import copy

import pytest
import torch
from lib.contract import (
    assert_same_run,
    assert_unchanged,
    make_parameters,
    run,
    snapshot,
    twin,
    warmup,
)
from lib.optimizers import KINDS

import lrfused
from lrfused import schedules
from lrfused.engine.bookkeeping import Bookkeeping


def with_gate(kind, params, peak, gate):
    """A schedule that reads a tensor."""
    lr = warmup(peak) * schedules.input(gate, "gate")
    opt = kind.ours(params, lr=lr, max_grad_norm=1.0, ema_decay=0.9)
    opt.set_masks({params[0]: torch.full(params[0].shape, peak > 0.1)})
    return opt


def pair_of(rng, kind):
    """Two optimizers over equal parameters, with schedules that differ."""
    params = make_parameters(rng)
    gates = torch.tensor(0.5), torch.tensor(1.0)
    first, second = (
        with_gate(kind, params, 0.1, gates[0]),
        with_gate(kind, twin(params), 0.2, gates[1]),
    )
    run(rng, 3, first)
    run(rng, 2, second)
    return first, second, gates


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        pytest.param(kind, place, id=f"{kind.name}-{place}")
        for kind in KINDS
        for place in (*kind.moments, *(["step"] if kind.counts else []))
    ],
)
def test_refused_schedules_are_not_taken(rng, kind, place):
    """load_schedules=True of a checkpoint that is refused for something else: the schedules, too,
    are as they were."""
    first, second, _ = pair_of(rng, kind)
    saved = copy.deepcopy(first.state_dict())
    saved["state"][3][place] = torch.zeros(5, dtype=torch.int32)
    before = snapshot(second)
    with pytest.raises((ValueError, TypeError)):
        second.load_state_dict(saved, load_schedules=True)
    assert_unchanged(second, before)
    run(rng, 1, second)
    assert second.metrics()["lr"] == [warmup(0.2)(2)]


def test_an_input_that_cannot_be_written_refuses_the_load(rng, kind):
    """An input made in inference_mode can be read, but not filled: the load says so beforehand."""
    first, _, _ = pair_of(rng, kind)
    with torch.inference_mode():
        gate = torch.tensor(1.0)
    other = with_gate(kind, make_parameters(rng), 0.2, gate)
    before = snapshot(other)
    with pytest.raises(ValueError, match=r"input gate of lr of group 0"):
        other.load_state_dict(first.state_dict())
    assert_unchanged(other, before)


def interrupting(function, at):
    """The function, which raises a KeyboardInterrupt at the n-th call."""
    calls = []

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) == at:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return call


COPIES = [(torch.Tensor, "copy_", 1), (torch.Tensor, "copy_", 4)]
PLACES = [(lrfused.FusedOptimizer, "__setstate__", 1)]
PLACES += [(Bookkeeping, f"load_{what}", 1) for what in ("masks", "counts", "counters")]


@pytest.mark.parametrize(
    ("kind", "owner", "name", "at"),
    [
        pytest.param(kind, *place, id=f"{kind.name}-{place[1]}-{place[2]}")
        for kind in KINDS
        for place in (*PLACES, *(COPIES if kind.has_state else ()))
    ],
)
def test_an_interrupt_waits_until_the_load_is_whole(rng, kind, monkeypatch, owner, name, at):
    """KeyboardInterrupt in the middle: everything is loaded, then it is raised."""
    first, second, gates = pair_of(rng, kind)
    saved = copy.deepcopy(first.state_dict())
    monkeypatch.setattr(owner, name, interrupting(getattr(owner, name), at))
    with pytest.raises(KeyboardInterrupt):
        second.load_state_dict(saved, load_schedules=True)
    monkeypatch.undo()
    for p, q in zip(*(o.param_groups[0]["params"] for o in (first, second)), strict=True):
        q.data.copy_(p)
    assert gates[1] == 0.5
    run(rng, 3, first, second)
    assert_same_run(first, second)
    assert first.metrics()["lr"] == second.metrics()["lr"]


def test_a_state_dict_of_the_same_optimizer_is_not_changed_by_loading(rng, kind):
    """Loading leaves the dictionary that was loaded as it was."""
    first, second, _ = pair_of(rng, kind)
    saved = copy.deepcopy(first.state_dict())
    kept = copy.deepcopy(saved)
    second.load_state_dict(saved, load_schedules=True)
    run(rng, 2, second)
    second.state_dict()
    assert str(saved) == str(kept)
