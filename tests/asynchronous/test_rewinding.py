"""Rewinding while nobody knows what the device has decided, and under a captured graph."""

import pytest
import torch
from lib.runs import (
    FEW,
    assert_same_contents,
    contents,
    random_problem,
    set_gradients,
    start,
    words,
)

from lrfused import schedules as S
from lrfused.riders import refusals
from lrfused.settings.slots import Slot
from lrfused.state.device_state import Field

from .capturing import capture

LR = S.linear(0.5, 0.0, 10)


@pytest.fixture
def made(rng, queue, rule, monkeypatch):
    """After two steps, of which the host knows nothing."""
    monkeypatch.setattr(refusals, "is_capturing", lambda device: queue.capturing)
    made = start(random_problem(rng, FEW, 1).values, max_grad_norm=1.0, lr=LR, nonfinite="raise")
    for _ in range(2):
        step(rng, made)
    return made


def step(rng, made, value=None):
    set_gradients(made.params, random_problem(rng, FEW, 1).gradients[0])
    if value is not None:
        made.params[2].grad[3, 4] = value
    made.opt.step()


def standing(made):
    found = {k: x for k, x in contents(made).items() if not k.startswith("grad")}
    return {**found, "words": words(made)["integer words"][: Field.ERROR + 1]}


def test_the_overrides_of_then_reach_a_captured_graph(rng, made, queue):
    """Uploaded at once: a replay runs no Python."""
    made.opt.sync_mirrors()
    made.opt.param_groups[0]["lr"] = 0.25
    with pytest.warns(UserWarning, match="overrides its schedule"):
        step(rng, made)
    capture(queue, made.opt)
    taken, before, table = made.opt.snapshot(), standing(made), made.opt._engine.table
    made.opt.param_groups[0]["lr"] = 0.125
    step(rng, made)
    made.opt.rewind(taken)
    assert_same_contents(standing(made), before)
    assert [values[0, Slot.LR] for values in table.run.pushed] == [0.25]
    step(rng, made)
    assert made.opt.metrics()["lr"] == [0.25] and made.opt._engine.table is table


def test_older_captured_tables_get_them_too(rng, made, queue):
    """One whose successor is gone, as well."""
    capture(queue, made.opt)
    taken, older = made.opt.snapshot(), made.opt._engine.table.run
    made.opt._engine.forget_table()
    made.opt.rewind(taken)
    assert len(older.pushed) == 1


def test_what_is_on_its_way_is_out_of_date(rng, made, queue):
    """A copy to the host that was asked for by a later step refreshes no mirror."""
    taken = made.opt.snapshot()
    for _ in range(3):
        step(rng, made)
    assert queue.waiting
    made.opt.rewind(taken)
    assert made.opt.param_groups[0]["lr"] == LR(2)
    queue.run()
    step(rng, made)
    assert made.opt.param_groups[0]["lr"] == LR(2)
    assert made.opt.metrics()["steps"] == 3


def test_a_latched_error_of_a_later_step_is_forgotten(rng, made, queue):
    taken, before = made.opt.snapshot(), standing(made)
    step(rng, made, torch.nan)
    step(rng, made)
    made.opt.rewind(taken)
    assert_same_contents(standing(made), before)
    queue.run()
    step(rng, made)
    assert made.opt.metrics()["steps"] == 3


def test_a_latched_error_of_an_earlier_step_is_raised_by_a_snapshot(rng, made):
    step(rng, made, torch.nan)
    with pytest.raises(RuntimeError, match="step 2: a gradient is not finite"):
        made.opt.snapshot()
    assert made.opt.snapshot().step == 2


def test_neither_is_a_part_of_a_graph(made, queue):
    taken, before = made.opt.snapshot(), standing(made)
    queue.capturing = True
    for call in (made.opt.snapshot, lambda: made.opt.rewind(taken)):
        with pytest.raises(RuntimeError, match="a CUDA graph is being captured"):
            call()
    queue.capturing = False
    assert_same_contents(standing(made), before)


def test_groups_that_were_edited_after_a_capture_are_refused_first(rng, queue, made):
    made.opt.param_groups.append({**made.opt.param_groups[0], "params": []})
    made.opt.step()
    capture(queue, made.opt)
    taken = made.opt.snapshot()
    step(rng, made)
    before = standing(made)
    made.opt.param_groups.reverse()
    made.opt.param_groups[0]["params"], made.opt.param_groups[1]["params"] = made.params, []
    with pytest.raises(RuntimeError, match="param_groups: groups were removed, added or put in"):
        made.opt.rewind(taken)
    made.opt.param_groups[0]["params"], made.opt.param_groups[1]["params"] = [], made.params
    made.opt.param_groups.reverse()
    assert_same_contents(standing(made), before)
