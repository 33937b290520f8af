"""What changes in mid-run is bound anew by itself: the bits are those of a new table."""

from unittest.mock import patch

import pytest
import torch
from lib.options import LR
from lib.runs import (
    advance,
    assert_same_bits,
    assert_same_run,
    contents,
    random_problem,
    set_gradients,
    shorter,
    start,
)

from lrfused import schedules as S
from lrfused.engine import entries
from lrfused.numerics.norm import CHUNK

SHAPES = [(3,), (), (65,), (5, 13), (0,), (CHUNK + 1,), (2, 700), (9,), (3, 3), (2 * CHUNK,), (1,)]
OPTIONS = {
    "plain": {},
    "clip": {"max_grad_norm": 0.5, "lr": LR},
    "everything": {
        "groups": ({"agc": 0.1, "lr": LR}, {"clip_value": S.linear(0.3, 0.1, 9), "ema_decay": 0.5}),
        "max_grad_norm": 0.5,
        "nonfinite": "skip",
    },
}


def late(rng, steps, shapes=SHAPES):
    """First gradients that come one or two at a time, in any order."""
    problem = random_problem(rng, shapes, steps)
    begins = rng.numpy.permutation(len(shapes)) * steps / len(shapes)
    for step, gradients in enumerate(problem.gradients):
        for i, begin in enumerate(begins):
            if step < begin:
                gradients[i] = None
    return problem


def bound_from_the_start(made):
    made.opt._engine.forget_table()


def run_late(problem, backend, before_each=lambda made: None, **options):
    made = start(problem.values, backend, **options)
    for gradients in problem.gradients:
        before_each(made)
        advance(made, gradients)
    return made


@pytest.mark.parametrize("chosen", OPTIONS)
def test_first_gradients_that_come_late(rng, backend, rule, chosen):
    problem = late(rng, shorter(backend, 12, least=6))
    want = run_late(problem, "reference", bound_from_the_start, **OPTIONS[chosen])
    assert_same_run(run_late(problem, backend, **OPTIONS[chosen]), want)


# Anything that may be replaced


def new_data(made, i):
    p = made.params[i]
    p.data = p.data.clone()


def swapped_data(made, i):
    """With another parameter of its shape, if there is one."""
    p = made.params[i]
    for q in made.params:
        if q.shape == p.shape:
            p.data, q.data = q.data, p.data


def other_layout(made, i):
    p = made.params[i]
    if p.dim() == 2:
        p.data = p.data.t().contiguous().t()


def with_room(made, i):
    """Every second element of twice as much memory: it has to be copied for a step."""
    p = made.params[i]
    p.data = torch.stack((p.data, p.data), -1)[..., 0]


def new_moment(made, i):
    state = made.opt.state.get(made.params[i], {})
    for key in made.opt.rule.state_keys:
        if state.get(key) is not None:
            state[key] = state[key].clone()


def moved_moment(made, i):
    state = made.opt.state.get(made.params[i], {})
    for key in made.opt.rule.state_keys:
        if state.get(key) is not None:
            state[key].data = state[key].data.clone()


def new_dictionary(made, i):
    states = made.opt.state
    if made.params[i] in states:
        states[made.params[i]] = dict(states[made.params[i]])


def no_state(made, i):
    made.opt.state.pop(made.params[i], None)


def more_state(made, i):
    """Of somebody else, beside ours."""
    if made.opt.state.get(made.params[i]):
        made.opt.state[made.params[i]]["own"] = torch.ones(1)


def other_direction(made, i):
    group = made.opt.param_groups[i % len(made.opt.param_groups)]
    group["maximize"] = not group["maximize"]


def lr_of(value):
    def change(made, i):
        made.opt.param_groups[i % len(made.opt.param_groups)]["lr"] = value()

    return change


CHANGES = [
    new_data,
    swapped_data,
    other_layout,
    with_room,
    new_moment,
    moved_moment,
    new_dictionary,
    no_state,
    more_state,
    other_direction,
    lr_of(lambda: torch.tensor(0.03)),
    lr_of(lambda: torch.tensor(0.02, dtype=torch.float64)),
    lr_of(lambda: 0.04),
    lr_of(lambda: S.linear(0.1, 0.0, 20)),
]


@pytest.mark.filterwarnings("ignore:param_groups.* overrides its schedule")
@pytest.mark.parametrize("chosen", OPTIONS)
def test_anything_may_be_replaced_at_any_step(rng, backend, rule, chosen):
    """Several changes before each step, first gradients among them."""
    problem = late(rng, shorter(backend, 24, least=6), [*SHAPES, (65,), (2, 700)])
    number = len(problem.values)
    plan = [
        [(CHANGES[c], i) for c, i in zip(cs, places, strict=True)]
        for cs, places in (
            (rng.numpy.integers(0, len(CHANGES), 3), rng.numpy.integers(0, number, 3))
            for _ in problem.gradients
        )
    ]

    def run(name, before_each=lambda made: None):
        made = start(problem.values, name, **OPTIONS[chosen])
        for gradients, changes in zip(problem.gradients, plan, strict=True):
            for change, i in changes:
                change(made, i)
            before_each(made)
            advance(made, gradients)
        return made

    assert_same_run(run(backend), run("reference", bound_from_the_start))


def with_other_size(made, i, size):
    """Of a parameter of a rule without state, which any size fits."""
    made.params[i].data = torch.ones(size)


@pytest.mark.parametrize("rule", ["sgd"], indirect=True)
def test_a_parameter_may_shrink_within_a_chunk(rng, backend, rule):
    """What was measured of the part that is gone does not count any more."""

    def run(name, before_each=lambda made: None):
        made = start([torch.ones(9000), torch.ones(5)], name, momentum=0.0, max_grad_norm=0.5)
        for size in (9000, 9000, 10, 8500, 3):
            with_other_size(made, 0, size)
            before_each(made)
            advance(made, [torch.full((size,), 0.5), torch.ones(5)])
        return made

    assert_same_run(run(backend), run("reference", bound_from_the_start))


@pytest.mark.parametrize("rule", ["adamw"], indirect=True)
def test_memory_of_replaced_tensors_may_be_used_again(rng, backend, rule):
    """An old moment's memory as a parameter's, and old moments that are freed."""
    problem = random_problem(rng, [(6,)] * 4, 3, none=0.0)
    made = start(problem.values, backend)
    advance(made, problem.gradients[0])
    state = made.opt.state[made.params[0]]
    old = [state[key] for key in ("exp_avg", "exp_avg_sq")]
    for key in ("exp_avg", "exp_avg_sq"):
        state[key] = state[key].clone()
    made.params[1].data = old[0].copy_(made.params[1].detach())
    old[1].untyped_storage().resize_(0)
    advance(made, problem.gradients[1])
    advance(made, problem.gradients[2])
    want = start(problem.values)
    for gradients in problem.gradients:
        advance(want, gradients)
    assert_same_run(made, want)


def test_an_empty_state_of_a_frozen_parameter_stays_empty(rng, backend, rule):
    problem = random_problem(rng, [(6,)] * 3, 4, none=0.0)
    made = start(problem.values, backend)
    for gradients in problem.gradients:
        made.opt.state[made.params[1]] = {}
        advance(made, [gradients[0], None, gradients[2]])
        assert made.opt.state[made.params[1]] == {}


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
