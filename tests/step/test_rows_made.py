"""A change costs what changed: rows that are made, what travels, what stays, what is refused."""

import gc
import os
import weakref
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from lib.changing import late, new_data, new_moment
from lib.runs import (
    advance,
    assert_same_bits,
    contents,
    needs_cpp,
    random_problem,
    set_gradients,
    start,
)

import lrfused
from lrfused.engine import entries
from lrfused.state.masks import KEY

STATM = Path("/proc/self/statm")

# Rows are made for what changed


def rows_made(made, gradients):
    """How many parameters a step looks at one by one, and whether the table stays."""
    table = made.opt._engine.table
    with patch.object(entries, "make_entry", wraps=entries.make_entry) as making:
        set_gradients(made.params, gradients)
        made.opt.step()
    return making.call_count, made.opt._engine.table is table


@pytest.mark.parametrize("writes", [False, True])
def test_rows_are_made_for_what_changed_alone(rng, kernels, rule, writes):
    problem = random_problem(rng, [(3,)] * 40, 7, none=0.0)
    late = [17, 31]
    for gradients in problem.gradients[:2]:
        for i in late:
            gradients[i] = None
    made = start(problem.values, kernels, max_grad_norm=1.0, lr=0.01, write_grads=writes)
    advance(made, problem.gradients[0])
    assert rows_made(made, problem.gradients[1]) == (0, True)
    assert rows_made(made, problem.gradients[2]) == (2, True)
    new_data(made, 5)
    assert rows_made(made, problem.gradients[3]) == (1, True)
    new_moment(made, 6)
    assert rows_made(made, problem.gradients[4]) == (1, True)
    made.opt.param_groups[0]["lr"] = torch.tensor(0.02)
    assert rows_made(made, problem.gradients[5]) == (0, True)
    made.opt.param_groups[0]["lr"] = 0.03
    assert rows_made(made, problem.gradients[6]) == (0, True)


def uploaded(table):
    """Words that the last binding of a GPU's table sent to the device."""
    run = table.run
    if hasattr(run, "_on_device"):
        return sum(array.uploaded for array in run._on_device._arrays.values())
    return run._table.uploaded


def test_only_rows_that_changed_travel(rng, kernels):
    if kernels == "cpu":
        pytest.skip("nothing is sent anywhere")
    problem = random_problem(rng, [(3,)] * 600, 3, none=0.0)
    for gradients in problem.gradients[:2]:
        gradients[599] = None
    made = start(problem.values, kernels, lr=0.01)
    advance(made, problem.gradients[0])
    whole = uploaded(made.opt._engine.table)
    for change, i, most in (
        (lambda made, i: None, 599, 200),
        (new_data, 300, 20),
        (new_moment, 20, 20),
        (lambda made, i: made.opt.param_groups[0].update(lr=torch.tensor(0.1)), 0, 150),
        (lambda made, i: made.opt.param_groups[0].update(lr=torch.tensor(0.2)), 0, 10),
    ):
        change(made, i)
        advance(made, problem.gradients[2])
        assert 0 < uploaded(made.opt._engine.table) < most < whole / 10


# What is refused


def test_a_late_parameter_that_shares_memory_is_refused(rng, backend, rule):
    """Before anything has changed; afterwards the run goes on."""
    problem = late(rng, 3, [(4,)] * 6)
    for gradients in problem.gradients:
        gradients[:] = [torch.ones(4)] * 6
    for gradients in problem.gradients[:2]:
        gradients[2] = None
    made = start(problem.values, backend, max_grad_norm=1.0)
    for gradients in problem.gradients[:2]:
        advance(made, gradients)
    own = made.params[2].data
    made.params[2].data = made.params[4].data.view(2, 2).view(4)
    before = contents(made)
    set_gradients(made.params, problem.gradients[2])
    for _ in range(2):
        with pytest.raises(ValueError, match="params: two parameters share memory"):
            made.opt.step()
        made.params[2].grad, gradient = None, made.params[2].grad
        for name, tensor in contents(made).items():
            if name in before:
                assert_same_bits(tensor, before[name], name)
        assert not made.opt.state.get(made.params[2])
        made.params[2].grad = gradient
    made.params[2].data = own
    made.opt.step()
    assert made.opt.metrics()["steps"] == 3


def test_a_captured_table_stays_as_it_is(rng, kernels):
    """A change after a capture makes another table; that of the graph keeps every row."""
    problem = late(rng, 4, [(3,)] * 8)
    problem.gradients[0][1] = torch.ones(3)
    made = start(problem.values, kernels, lr=0.01)
    advance(made, problem.gradients[0])
    table = made.opt._engine.table
    table.keep_for_graphs()
    rows, operands = table.work.tensors.copy(), [e.operands for e in table.work.entries]
    for gradients in problem.gradients[1:]:
        new_data(made, 1)
        made.opt.param_groups[0]["lr"] = torch.tensor(0.5)
        advance(made, gradients)
    assert made.opt._engine.table is not table and table in made.opt._engine._captured
    assert (table.work.tensors == rows).all()
    assert [e.operands for e in table.work.entries] == operands


def test_memory_that_a_graph_writes_stays(rng, kernels):
    """Whoever rebinds a parameter and replays a graph writes to nobody else's memory."""
    made = start(random_problem(rng, [(3,), (4,)], 1, none=0.0).values, kernels)
    array = made.params[0].detach().numpy().copy()
    old = weakref.ref(array)
    made.params[0].data = torch.from_numpy(array)
    del array
    advance(made, [torch.ones(3), torch.ones(4)])
    made.opt._engine.table.keep_for_graphs()
    new_data(made, 0)
    advance(made, [torch.ones(3), torch.ones(4)])
    gc.collect()
    assert old() is not None
    made.opt._engine._captured.clear()
    gc.collect()
    assert old() is None


def test_a_mask_has_its_key_after_a_load_and_a_change(backend):
    """Also where a parameter has no other state, and only a source is bound anew."""
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    opt = lrfused.SGD(params, lr=0.1, backend=backend)
    for p in params:
        p.grad = torch.ones(3)
    opt.step()
    opt.set_masks({params[0]: torch.tensor([True, False, True])})
    opt.step()
    opt.load_state_dict(opt.state_dict())
    opt.param_groups[0]["lr"] = torch.tensor(0.02)
    opt.step()
    assert KEY in opt.state[params[0]]


@needs_cpp
@pytest.mark.skipif(not STATM.exists(), reason="nobody says how large a process is")
def test_the_guard_does_not_grow(rng):
    """However often a parameter and its state are bound anew, in turns with more and less of it."""

    def pages():
        return int(STATM.read_text().split()[1])

    made = start([torch.ones((1,) * 30)], "cpu", max_grad_norm=1.0)
    advance(made, [torch.ones((1,) * 30)])
    guard, states = made.opt._engine.table.guard, made.opt.state
    state = states[made.params[0]]
    sizes = []
    for _ in range(4):
        for i in range(4000):
            state.pop("own", None) if i % 2 else state.update(own=torch.ones(1))
            guard.update(0, True, True, states)
        sizes.append(pages())
    assert (sizes[-1] - sizes[0]) * os.sysconf("SC_PAGESIZE") < 2**20
