"""Tables, sampled functions and inputs."""

import copy
import gc
import math
import pickle
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lib.schedule_values import assert_same_bits

from lrfused import schedules as S
from lrfused.schedules.bytecode import Op
from lrfused.schedules.nodes import nodes_in_order

finite = st.floats(-1e6, 1e6)
entries = st.lists(finite, min_size=1, max_size=200)

# Tables


@given(values=entries)
def test_a_table_holds_its_values_and_the_last_one(values):
    table = S.table(values)
    assert_same_bits(table.values(range(len(values))), values)
    far = [len(values), len(values) + 1, 2**40, 2**53]
    assert_same_bits(table.values(far), [values[-1]] * 4)


@given(values=entries, position=st.floats(-5.0, 250.0))
def test_a_table_is_linear_between_its_entries_and_held_outside(values, position):
    below = min(max(math.floor(position), 0), len(values) - 1)
    above = min(below + 1, len(values) - 1)
    x = min(max(position - below, 0.0), 1.0)
    want = values[below] + (values[above] - values[below]) * x
    got = S.table(values).at(position)(0)
    assert got == pytest.approx(want, rel=1e-12, abs=1e-9)
    if position <= 0.0 or position >= len(values) - 1:
        assert got == (values[0] if position <= 0.0 else values[-1])


def table_in(schedule):
    (node,) = (node for node in nodes_in_order(schedule) if node._kind == Op.TABLE)
    return node._payload


@pytest.mark.parametrize("length", [2, 1000])
def test_equal_tables_are_one_array_which_programs_read(rng, length):
    values = rng.numpy.normal(size=length)
    one = S.table(values) * 2.0
    others = [
        S.table(values.tolist()),
        S.table(torch.tensor(values)) + 1.0,
        copy.deepcopy(one),
        pickle.loads(pickle.dumps(one)),
        S.Schedule.from_dict(one.to_dict()),
    ]
    assert all(table_in(other) is table_in(one) for other in others)
    assert one.program.table is others[1].program.table is table_in(one)
    assert table_in(S.table(values + 1e-9)) is not table_in(one)


def test_the_sign_of_zero_makes_another_table():
    assert str(S.table([0.0])(0)) + str(S.table([-0.0])(0)) == "0.0-0.0"


def test_a_table_is_a_copy_and_is_freed_with_its_last_schedule(rng):
    values = rng.numpy.normal(size=100)
    before, schedule = values.copy(), S.table(values)
    values[:] = 0.0
    assert schedule.values(range(100)).tolist() == before.tolist()
    array = weakref.ref(table_in(schedule))
    del schedule
    gc.collect()
    assert array() is None


def test_a_table_read_elsewhere():
    table = S.table([1.0, 2.0, 4.0])
    assert table.at(S.step / 4).values(range(11)).tolist() == [
        *(1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0, 4.0)
    ]
    assert table.at(1.0 - S.step).values([0, 1, 2, 9]).tolist() == [2.0, 1.0, 1.0, 1.0]
    assert math.isnan(table.at(S.step / S.step)(0))
    assert table.at(1 / S.step)(0) == 4.0
    assert table.at(-1 / S.step)(0) == 1.0
    assert table.shifted(5).values([0, 5, 6, 7, 8]).tolist() == [1.0, 1.0, 2.0, 4.0, 4.0]


def test_a_table_of_one_value_is_that_value():
    assert S.table([7.5]).values([0, 1, 2**53]).tolist() == [7.5] * 3
    assert S.table([7.5]).at(S.step / 3)(1) == 7.5


@given(first=entries, second=entries, at=st.lists(st.integers(0, 300), min_size=1))
def test_two_tables_in_one_schedule_do_not_meet(first, second, at):
    one, two = S.table(first), S.table(second)
    both = one * 3.0 - two.at(S.step / 2)
    want = one.values(at) * 3.0 - two.at(S.step / 2).values(at)
    assert_same_bits(both.values(at), want)
    assert_same_bits([both(t) for t in at], want)


@pytest.mark.parametrize(
    "values",
    [(1, 2, 3), np.array([1, 2, 3], dtype=np.int16), torch.tensor([1.0, 2.0, 3.0]), range(1, 4)],
)
def test_a_table_takes_any_list_of_numbers(values):
    assert S.table(values) == S.table([1.0, 2.0, 3.0])


def test_a_table_does_not_follow_the_list_that_it_was_made_from():
    values = np.array([1.0, 2.0])
    table = S.table(values)
    values[:] = 9.0
    assert table.values([0, 1]).tolist() == [1.0, 2.0]


# Sampled functions


def test_from_function_samples_every_step_up_to_the_last():
    called = []

    def fn(t):
        called.append(t)
        return 1.0 / (1 + t)

    schedule = S.from_function(fn, 7)
    assert called == list(range(8))
    assert schedule.values([*range(8), 8, 2**40]).tolist() == [
        *(1.0 / (1 + t) for t in range(8)),
        *(1.0 / 8, 1.0 / 8),
    ]
    assert schedule == S.table([1.0 / (1 + t) for t in range(8)])


def test_from_function_of_no_steps_is_the_first_value():
    assert S.from_function(lambda t: 3, 0).values([0, 5]).tolist() == [3.0, 3.0]


@pytest.mark.parametrize("kind", [int, np.float32, np.float64, np.int64])
def test_from_function_takes_any_number(kind):
    assert S.from_function(lambda t: kind(t), 3).values(range(5)).tolist() == [0, 1, 2, 3, 3]


def test_a_schedule_can_be_sampled():
    cosine = S.cosine(1.0, 0.0, 20)
    sampled = S.from_function(cosine, 20)
    assert_same_bits(sampled.values(range(30)), cosine.values(range(30)))


# Inputs


def test_an_input_is_followed():
    noise = torch.tensor(0.5, dtype=torch.float64)
    schedule = 2.0 * S.input(noise, "noise") + S.step
    assert schedule(1) == 2.0
    noise.fill_(3.0)
    assert schedule(1) == 7.0
    assert schedule.values([0, 1]).tolist() == [6.0, 7.0]
    noise.fill_(math.nan)
    assert math.isnan(schedule(1))
    noise.fill_(-math.inf)
    assert schedule(1) == -math.inf


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.float64, 0.1),
        (torch.float32, float(np.float32(0.1))),
        (torch.bfloat16, 0.10009765625),
        (torch.float16, 0.0999755859375),
        (torch.int64, 2**53 - 1),
        (torch.int32, -(2**31)),
    ],
)
def test_inputs_of_every_dtype(dtype, value):
    tensor = torch.tensor(value if not dtype.is_floating_point else 0.1, dtype=dtype)
    assert S.input(tensor, "x")(0) == value


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1)])
def test_inputs_of_one_element(shape):
    assert (S.input(torch.full(shape, 0.5), "x") * 2.0)(0) == 1.0


def test_inputs_are_read_from_views_and_parameters():
    vector = torch.arange(5.0)
    third = S.input(vector[3], "third")
    assert third(0) == 3.0
    vector[3] = -1.0
    assert third(0) == -1.0
    assert S.input(torch.nn.Parameter(torch.tensor(2.0)), "weight")(0) == 2.0


def test_inputs_keep_their_order_and_names():
    a, b = torch.tensor(10.0), torch.tensor(3.0)
    difference = S.input(a, "a") - S.input(b, "b")
    assert difference(0) == 7.0
    assert difference.program.names == ("a", "b")
    assert [node(0) for node in difference.inputs] == [10.0, 3.0]


def test_an_input_used_twice_is_one_input():
    x = S.input(torch.tensor(3.0), "x")
    assert (x * x + x).program.names == ("x",)
    assert (x * x + x)(0) == 12.0


def test_an_input_named_like_another_keeps_its_own_value():
    x, y = (S.input(torch.tensor(value), "same") for value in (10.0, 3.0))
    assert (x - y)(0) == 7.0


@pytest.mark.parametrize("tensor", [1.0, None, np.zeros(1), [torch.tensor(1.0)], S.step])
def test_an_input_must_be_a_tensor(tensor):
    with pytest.raises(TypeError, match=r"^tensor: must be a torch.Tensor"):
        S.input(tensor, "x")


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.int8, torch.uint8])
def test_an_input_must_have_one_of_the_dtypes(dtype):
    with pytest.raises(TypeError, match=r"^tensor: dtype"):
        S.input(torch.zeros((), dtype=dtype), "x")


@pytest.mark.parametrize("shape", [(0,), (2,), (1, 2)])
def test_an_input_must_have_one_element(shape):
    with pytest.raises(ValueError, match=r"^tensor: must have one element"):
        S.input(torch.zeros(shape), "x")


def test_an_input_must_have_a_name():
    with pytest.raises(ValueError, match=r"^name"):
        S.input(torch.tensor(1.0), "")
    for name in (None, 5, b"x"):
        with pytest.raises(TypeError, match=r"^name"):
            S.input(torch.tensor(1.0), name)
