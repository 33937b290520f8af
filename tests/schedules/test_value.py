"""Schedule as a value: equality, immutability, copies."""

import copy
import math
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lib.random_schedules import schedules, steps
from lib.schedule_values import assert_same_bits

from lrfused import schedules as S
from lrfused.schedules import Schedule

from .named import ROWS

t = S.step

# Equality


@given(seed=st.integers(0, 2**32))
def test_equal_when_built_the_same_way(seed):
    def build():
        random.seed(seed)
        a, b, n = random.random(), random.random(), random.randint(1, 50)
        table = S.table([random.random() for _ in range(random.randint(1, 90))])
        return S.warmup_cosine(a, n, 3 * n, b) * table + S.cos(t)

    one, other = build(), build()
    assert one == other
    assert hash(one) == hash(other)
    assert (one != other) is False
    assert len({one, other}) == 1
    assert {one: 1}[other] == 1


@pytest.mark.parametrize("name", list(ROWS))
def test_named_schedules_are_equal_by_value(name):
    make, one, other, _ = ROWS[name]
    assert make(**one) == make(**one)
    assert hash(make(**one)) == hash(make(**one))
    assert make(**one) != make(**other)


def test_unequal_schedules():
    distinct = [
        t,
        t + 1,
        t + 2,
        1 + t,
        t - 1,
        t * 2,
        t**2,
        S.floor(t),
        S.cos(t),
        S.constant(1.0),
        S.constant(0.0),
        t.at(-0.0),
        t.at(math.nan),
        S.table([1.0]),
        S.table([1.0, 1.0]),
        S.table([0.0]),
        S.table([-0.0]),
        S.table([1.0]).at(t + 1),
        S.select(t, t, 1.0),
        S.select(t, 1.0, t),
    ]
    for i, one in enumerate(distinct):
        for j, other in enumerate(distinct):
            assert (one == other) == (i == j)
            assert (one != other) == (i != j)
    assert len(set(distinct)) == len(distinct)


def test_a_nan_constant_equals_itself():
    assert t.at(math.nan) == t.at(math.nan)


def test_a_schedule_equals_no_number():
    assert S.constant(3.0) != 3.0
    assert 3.0 != S.constant(3.0)  # noqa: SIM300
    assert np.float64(3.0) != S.constant(3.0)
    assert S.constant(3.0) != "3"
    assert S.constant(3.0) != None  # noqa: E711


def test_inputs_are_equal_by_identity_and_name():
    one, same_value = torch.tensor(1.0), torch.tensor(1.0)
    assert S.input(one, "x") == S.input(one, "x")
    assert hash(S.input(one, "x")) == hash(S.input(one, "x"))
    assert S.input(one, "x") != S.input(same_value, "x")
    assert S.input(one, "x") != S.input(one, "y")
    changing = 2.0 * S.input(one, "x")
    before = hash(changing)
    one.fill_(5.0)
    assert hash(changing) == before
    assert changing == 2.0 * S.input(one, "x")


def test_comparing_does_not_walk_shared_parts_again_and_again(monkeypatch):
    """Two expressions of n operations have 2**n paths; comparing must not follow them all."""
    calls = 0
    compare = Schedule.__eq__

    def counted(self, other):
        nonlocal calls
        calls += 1
        assert calls < 5000, "comparison takes exponential time"
        return compare(self, other)

    def doubled(n):
        schedule = t
        for _ in range(n):
            schedule = schedule + schedule
        return schedule

    monkeypatch.setattr(Schedule, "__eq__", counted)
    assert doubled(60) == doubled(60)
    assert doubled(60) != doubled(59)


# Immutability


@pytest.mark.parametrize("name", ["_kind", "_arguments", "_payload", "_hash", "program", "lr", "x"])
def test_attributes_cannot_be_changed(name):
    schedule = t + 1
    before = hash(schedule)
    with pytest.raises(AttributeError):
        setattr(schedule, name, 1)
    with pytest.raises(AttributeError):
        delattr(schedule, name)
    assert hash(schedule) == before
    assert schedule(1) == 2.0


def test_in_place_arithmetic_makes_another_schedule():
    one = other = t + 1
    other += 1
    assert one(0) == 1.0
    assert other(0) == 2.0


# Copies

copies = {
    "pickle": lambda s: pickle.loads(pickle.dumps(s)),
    "oldest pickle": lambda s: pickle.loads(pickle.dumps(s, protocol=0)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
every_copy = pytest.mark.parametrize("copied", copies.values(), ids=copies.keys())


@every_copy
@pytest.mark.parametrize("name", list(ROWS))
def test_copies_of_named_schedules(copied, name):
    schedule = ROWS[name].make(**ROWS[name].one)
    again = copied(schedule)
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert again.program.shape == schedule.program.shape
    assert_same_bits(again.values(range(200)), schedule.values(range(200)))


@every_copy
@given(schedule=schedules(), at=st.lists(steps, min_size=1))
def test_copies_of_random_expressions(copied, schedule, at):
    again = copied(schedule)
    assert again.program.shape == schedule.program.shape
    assert_same_bits(again.values(at), schedule.values(at))


@every_copy
def test_copies_of_tables(copied):
    schedule = S.table(np.linspace(0.0, 1.0, 101)) * 2.0
    again = copied(schedule)
    again.values([3])
    assert again == schedule
    assert hash(again) == hash(schedule)


@every_copy
def test_copies_of_the_deepest_expressions(copied):
    deep = t
    for _ in range(199):
        deep = S.sqrt(deep)
    assert copied(deep) == deep


def test_deepcopy_takes_the_inputs_along():
    """A copy of a model and its optimizer follows the copied tensor."""
    both = {"noise": torch.tensor(1.0), "other": 3}
    both["lr"] = 2.0 * S.input(both["noise"], "noise")
    again = copy.deepcopy(both)
    again["noise"].fill_(5.0)
    assert again["lr"](0) == 10.0
    assert both["lr"](0) == 2.0
    assert again["lr"] != both["lr"]


def test_copy_shares_the_inputs():
    noise = torch.tensor(1.0)
    again = copy.copy(S.input(noise, "noise"))
    noise.fill_(5.0)
    assert again(0) == 5.0
    assert again == S.input(noise, "noise")
