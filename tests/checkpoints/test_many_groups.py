"""A group for each tensor: construction, save and load take work in proportion to the groups, and
what groups have in common is stored and read once."""

import copy
import io
import json

import pytest
import torch
from lib.calls import calls_in
from lib.optimizers import ADAMW

from lrfused import schedules
from lrfused.schedules import Schedule
from lrfused.schedules.bytecode import Program
from lrfused.settings.slots import Slot

from .scenarios import warmup

WAYS = {
    "numbers": lambda i: 1e-3 / (i + 1),
    "one schedule": lambda i: SHARED,
    "equal schedules": lambda i: warmup(0.5),
    "schedules": lambda i: warmup(1 / (i + 1)),
    "sampled": lambda i: LONG.scaled(1 / (i + 1)),
    "tensors": lambda i: schedules.input(torch.tensor(1 / (i + 1)), f"own{i}"),
}
SHARED = warmup(0.5)
LONG = schedules.from_function(lambda t: (t + 1) / 7, 300)
every_way = pytest.mark.parametrize("way", WAYS)


def groups(way, n):
    params = (torch.nn.Parameter(torch.ones(1)) for _ in range(n))
    return [{"params": [param], "lr": WAYS[way](i)} for i, param in enumerate(params)]


def stepped(kind, way, n, **options):
    opt = kind.ours(groups(way, n), max_grad_norm=1.0, **options)
    for group in opt.param_groups:
        group["params"][0].grad = torch.ones(1)
    opt.step()
    return opt


def assert_in_proportion(work):
    """Four times as many groups are at most four times the work, but for a constant part."""
    __tracebackhide__ = True
    work(4)  # what happens once in a process
    few, many = work(25), work(100)
    assert many < 4.2 * few, f"{few} calls for 25 groups, {many} for 100"


# Work in proportion


@every_way
def test_construction(kind, way):
    def work(n):
        given = groups(way, n)
        return calls_in(lambda: kind.ours(given))

    assert_in_proportion(work)


@every_way
def test_adding_groups_one_by_one(kind, way):
    def work(n):
        opt, given = stepped(kind, way, 1), groups(way, n)
        return calls_in(lambda: [opt.add_param_group(group) for group in given])

    assert_in_proportion(work)


@every_way
def test_saving(kind, way):
    assert_in_proportion(lambda n: calls_in(stepped(kind, way, n).state_dict))


@every_way
@pytest.mark.parametrize("load_schedules", [False, True])
def test_loading(kind, way, load_schedules):
    def work(n):
        state = copy.deepcopy(stepped(kind, way, n).state_dict())
        opt = kind.ours(groups(way, n), max_grad_norm=1.0)
        return calls_in(lambda: opt.load_state_dict(state, load_schedules=load_schedules))

    assert_in_proportion(work)


def test_written_schedules(kind):
    def work(n):
        opt = stepped(kind, "numbers", n)
        for group in opt.param_groups:
            group["lr"] = warmup(0.3)
        return calls_in(opt.sync_mirrors)

    assert_in_proportion(work)


# Once


def texts(opt):
    return [group["lrfused"] for group in opt.state_dict()["param_groups"]]


def lr_schedules(opt):
    return [row.cells[Slot.LR].schedule for row in opt._engine.bookkeeping.hyper.rows]


def test_groups_with_equal_content_have_one_text(kind):
    """One string, which pickle stores once; also after torch.load and a deepcopy."""
    opt = stepped(kind, "equal schedules", 50)
    assert len(set(map(id, texts(opt)))) == 1
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    assert file.getvalue().count(b'"schedules"') == 1
    assert len(set(map(id, texts(copy.deepcopy(opt))))) == 1


def test_schedules_of_equal_content_are_one_object(kind):
    opt = stepped(kind, "equal schedules", 5)
    assert len(set(map(id, lr_schedules(opt)))) == 1


@pytest.mark.parametrize("make", [lambda: LONG, lambda: copy.copy(LONG)], ids=["one", "equal"])
def test_a_table_with_other_factors_stands_once(kind, make):
    params = [torch.nn.Parameter(torch.ones(1)) for _ in range(20)]
    opt = kind.ours([{"params": [p], "lr": make() * (i + 1.0)} for i, p in enumerate(params)])
    tables = [json.loads(text)["tables"] for text in texts(opt)]
    assert [len(table) for table in tables] == [1] + 19 * [0]
    made = lr_schedules(opt)
    assert len(set(made)) == 20 and len({id(schedule.program.table) for schedule in made}) == 1


def test_a_table_moves_to_another_text_with_its_group_gone(kind):
    opt = kind.ours(groups("sampled", 5))
    del opt.param_groups[0]
    tables = [json.loads(text)["tables"] for text in texts(opt)]
    assert [len(table) for table in tables] == [1, 0, 0, 0]


def test_loaded_schedules_of_equal_text_are_read_once(kind, monkeypatch):
    state = copy.deepcopy(stepped(kind, "one schedule", 20).state_dict())
    opt, calls, read = kind.ours(groups("numbers", 20), max_grad_norm=1.0), [], Schedule.from_dict
    monkeypatch.setattr(Schedule, "from_dict", lambda *args: calls.append(args) or read(*args))
    opt.load_state_dict(state, load_schedules=True)
    assert len(calls) == 1
    assert {group["lr"] for group in opt.param_groups} == {SHARED(1)}


def test_a_loaded_table_is_one_array(kind):
    state = copy.deepcopy(stepped(kind, "sampled", 20).state_dict())
    opt = kind.ours(groups("numbers", 20), max_grad_norm=1.0)
    opt.load_state_dict(state, load_schedules=True)
    loaded = lr_schedules(opt)
    assert [s(9) for s in loaded] == [LONG(9) * (1 / (i + 1)) for i in range(20)]
    assert len({id(schedule.program.table) for schedule in loaded}) == 1


def test_products_of_equal_betas_are_recovered_once(monkeypatch):
    """torch's checkpoint has no products: 20 groups with one schedule are evaluated once."""
    theirs = ADAMW.theirs([{"params": g["params"]} for g in groups("numbers", 20)])
    for group in theirs.param_groups:
        group["params"][0].grad = torch.ones(1)
    theirs.step()
    beta = schedules.linear(0.8, 0.9, 10)
    opt = ADAMW.ours(groups("numbers", 20), betas=(beta, 0.999), bias_correction="product")
    calls, evaluate = [], Program.evaluate
    monkeypatch.setattr(Program, "evaluate", lambda *args: calls.append(args) or evaluate(*args))
    opt.load_state_dict(theirs.state_dict())
    assert len(calls) == 1
    assert {float(state["lrfused_beta1_product"]) for state in opt.state.values()} == {beta(0)}
