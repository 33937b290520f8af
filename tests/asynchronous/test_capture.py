"""While a CUDA graph is captured, and after: what is refused, what stays where it is."""

import copy
import gc
import weakref

import pytest
import torch
from lib.runs import FEW, assert_same_bits, random_problem, set_gradients, start

from lrfused import schedules as S
from lrfused.backends.registry import BACKENDS
from lrfused.engine import bind
from lrfused.settings.slots import Slot

from .capturing import capture

ADDRESSED = ("words", "loss_scale")


@pytest.fixture
def made(rng, queue, rule):
    """After two steps, of which one parameter had no part."""
    made = start(random_problem(rng, FEW, 1).values, max_grad_norm=1.0, loss_scale="dynamic")
    for _ in range(2):
        give(rng, made)
        made.params[1].grad = None
        made.opt.step()
    return made


def give(rng, made):
    set_gradients(made.params, random_problem(rng, FEW, 1).gradients[0])


def addresses(made):
    """Of all that a captured graph writes, besides parameters."""
    state = made.opt._engine.bookkeeping.state(made.opt.param_groups)
    found = [getattr(state, name).data_ptr() for name in ADDRESSED]
    found += [getattr(state.tensors, n).data_ptr() for n in ("counts", "steps", "carried")]
    return found + [made.opt.state[made.params[0]][k].data_ptr() for k in made.opt.rule.keys[:2]]


def test_a_capture_asks_nothing_and_nothing_is_asked_of_it(made, queue):
    queue.run()
    asked = queue.asked
    capture(queue, made.opt)
    assert queue.asked == asked and not queue.waiting


def test_a_capture_right_after_an_error_asks_nothing(rng, queue):
    """Then no copy is on its way that would stand for it."""
    made = start(random_problem(rng, FEW, 1).values, nonfinite="raise")
    give(rng, made)
    made.params[2].grad.fill_(torch.inf)
    made.opt.step()
    queue.run()
    give(rng, made)
    with pytest.raises(RuntimeError, match="step 0: a gradient is not finite"):
        made.opt.step()
    asked = queue.asked
    capture(queue, made.opt)
    assert queue.asked == asked


def test_a_table_is_not_built_in_a_capture(rng, made, queue):
    give(rng, made)  # the second parameter's first gradient
    before = [p.detach().clone() for p in made.params]
    steps = made.opt.metrics()["steps"]
    with pytest.raises(RuntimeError, match="step: a new table of addresses is needed"):
        capture(queue, made.opt)
    for p, q in zip(made.params, before, strict=True):
        assert_same_bits(p.detach(), q)
    assert made.params[1] not in made.opt.state or not made.opt.state[made.params[1]]
    made.opt.step()
    capture(queue, made.opt)
    assert made.opt.metrics()["steps"] == steps + 2


def test_a_first_step_cannot_be_captured(rng, queue):
    made = start(random_problem(rng, FEW, 1).values, lr=0.0)
    set_gradients(made.params, [torch.zeros_like(p) for p in made.params])
    with pytest.raises(RuntimeError, match="take one step with the same parameters"):
        capture(queue, made.opt)
    assert not made.opt.state


def test_the_reference_cannot_be_captured(rng, made, queue, monkeypatch):
    monkeypatch.setattr(bind, "choose_for_all", lambda choice, devices: BACKENDS["reference"])
    opt = type(made.opt)(made.params)
    opt.step()
    with pytest.raises(RuntimeError, match=r"'reference' asks the device .* cannot be captured"):
        capture(queue, opt)


def test_a_captured_table_lives_on_when_it_is_replaced(rng, made, queue):
    capture(queue, made.opt)
    run, work = (weakref.ref(x) for x in (made.opt._engine.table.run, made.opt._engine.table.work))
    before = addresses(made)
    give(rng, made)
    made.opt.step()  # the second parameter has a gradient now
    made.params[0].data = made.params[0].data.clone()
    made.opt.step()
    gc.collect()
    assert run() is not None and work() is not None
    assert made.opt._engine.table.run is not run()
    assert addresses(made) == before
    duplicate = copy.deepcopy(made.opt)
    assert not duplicate._engine.bookkeeping.is_captured


def test_another_table_is_let_go(rng, made, queue):
    run = weakref.ref(made.opt._engine.table.run)
    give(rng, made)
    made.opt.param_groups[0]["maximize"] = True
    made.opt.step()
    gc.collect()
    assert run() is None


def test_a_loaded_checkpoint_lies_where_the_captured_graph_looks(rng, made, queue):
    saved = copy.deepcopy(made.opt.state_dict())
    capture(queue, made.opt)
    table, before = made.opt._engine.table, addresses(made)
    made.opt.step()
    made.opt.load_state_dict(saved)
    assert addresses(made) == before and made.opt.metrics()["steps"] == 2
    made.opt.step()
    assert made.opt._engine.table is table


def test_no_group_is_added_after_a_capture(made, queue):
    more = torch.nn.Parameter(torch.ones(2))
    capture(queue, made.opt)
    with pytest.raises(RuntimeError, match="param_group: a step was captured in a CUDA graph"):
        made.opt.add_param_group({"params": [more]})
    assert len(made.opt.param_groups) == 1


# push


def test_push_uploads_what_stands_in_the_groups(made):
    made.opt.param_groups[0]["lr"] = 0.25
    before = [p.detach().clone() for p in made.params]
    made.opt.push()
    (values,) = made.opt._engine.table.run.pushed
    assert values[0, Slot.LR] == 0.25
    for p, q in zip(made.params, before, strict=True):
        assert_same_bits(p.detach(), q)


def test_push_reaches_older_captured_tables(rng, made, queue):
    capture(queue, made.opt)
    older = made.opt._engine.table.run
    give(rng, made)
    made.opt.step()
    made.opt.param_groups[0]["lr"] = 0.25
    made.opt.push()
    for run in (older, made.opt._engine.table.run):
        assert [values[0, Slot.LR] for values in run.pushed] == [0.25]


def test_push_before_the_first_step_leaves_it_to_that(rng):
    made = start(random_problem(rng, FEW, 1).values, "cpu")
    made.opt.param_groups[0]["lr"] = 0.25
    made.opt.push()
    give(rng, made)
    made.opt.step()
    assert made.opt.metrics()["lr"] == [0.25]


@pytest.mark.parametrize("change", [None, {"maximize": True}, {"lr": torch.tensor(0.1)}], ids=repr)
def test_push_refuses_what_is_not_a_number(rng, made, rule, change):
    """Without a change, the rule's own."""
    made.opt.param_groups[0].update(change or rule.largest or {"maximize": True})
    with pytest.raises(RuntimeError, match="push: param_groups holds more than other numbers"):
        made.opt.push()
    assert made.opt._engine.table.run.pushed == []
    made.opt.step()  # which takes it in
    made.opt.push()


def test_push_of_a_scheduled_optimizer_overrides_and_returns(rng, queue):
    lr = S.linear(0.5, 0.0, 10)
    made = start(random_problem(rng, FEW, 1).values, lr=lr)
    give(rng, made)
    made.opt.step()
    made.opt.sync_mirrors()
    made.opt.param_groups[0]["lr"] = 0.25
    with pytest.warns(UserWarning, match="overrides its schedule"):
        made.opt.push()
    made.opt.step()
    assert made.opt.metrics()["lr"] == [0.25]
    made.opt.param_groups[0]["lr"] = lr(1)
    made.opt.push()
    made.opt.step()
    assert made.opt.metrics()["lr"] == [lr(2)]
