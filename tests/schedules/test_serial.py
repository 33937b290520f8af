"""Schedules as plain data: round trips, torch.save, malformed data."""

import io
import json
import math

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


def through_torch_save(data):
    buffer = io.BytesIO()
    torch.save(data, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def tensors_of(schedule):
    """The schedule's inputs by name, for from_dict."""
    return {
        name: torch.tensor(node(0), dtype=torch.float64)
        for name, node in zip(schedule.program.names, schedule.inputs, strict=True)
    }


def assert_plain(data, long_tables):
    if isinstance(data, torch.Tensor):
        assert long_tables and data.dtype == torch.float64 and data.dim() == 1
    elif isinstance(data, dict):
        assert all(type(key) is str for key in data)
        for value in data.values():
            assert_plain(value, long_tables)
    elif isinstance(data, list):
        for value in data:
            assert_plain(value, long_tables)
    else:
        assert data is None or type(data) in (int, float, str)


# Round trips


@pytest.mark.parametrize("name", list(ROWS))
def test_named_schedules_go_round(name):
    schedule = ROWS[name].make(**ROWS[name].one)
    data = schedule.to_dict()
    assert_plain(data, long_tables=False)
    for read in (data, json.loads(json.dumps(data)), through_torch_save(data)):
        again = Schedule.from_dict(read)
        assert again == schedule
        assert again.program.shape == schedule.program.shape
        assert again.program.constants == schedule.program.constants


@given(schedule=schedules(), at=st.lists(steps, min_size=1))
def test_random_expressions_go_round(schedule, at):
    data = through_torch_save(schedule.to_dict())
    again = Schedule.from_dict(data, inputs=tensors_of(schedule))
    assert again.program.shape == schedule.program.shape
    assert again.program.names == schedule.program.names
    assert_same_bits(again.program.constants, schedule.program.constants)
    assert_same_bits(again.values(at), schedule.values(at))


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_tables_go_round_and_long_ones_are_tensors(rng, length):
    values = rng.numpy.normal(size=length)
    data = (S.table(values) * 2.0).to_dict()
    assert_plain(data, long_tables=length > 64)
    stored = next(payload for kind, payload, _ in data["nodes"] if kind == "table")
    assert isinstance(stored, torch.Tensor) == (length > 64)
    assert Schedule.from_dict(through_torch_save(data)) == S.table(values) * 2.0


def test_the_data_is_the_callers_own():
    short, long = S.table([1.0, 2.0]), S.table(np.ones(100))
    for schedule in (short, long):
        data = schedule.to_dict()
        stored = next(payload for kind, payload, _ in data["nodes"] if kind == "table")
        stored[0] = 9.0
        assert schedule(0) == 1.0
        again = Schedule.from_dict(data)
        stored[0] = 7.0
        assert again(0) == 9.0


def test_special_constants_go_round():
    for value in (math.inf, -math.inf, math.nan, -0.0, 5e-324, 1.7976931348623157e308, 0.1):
        schedule = t * value
        assert Schedule.from_dict(through_torch_save(schedule.to_dict())) == schedule


def test_shared_parts_stay_shared():
    doubled = t
    for _ in range(60):
        doubled = doubled + doubled
    data = doubled.to_dict()
    assert len(data["nodes"]) == 61
    assert len(Schedule.from_dict(data).program.code) == 60


def test_inputs_are_stored_by_name_and_given_again():
    old, new = torch.tensor(2.0), torch.tensor(5.0)
    schedule = 3.0 * S.input(old, "noise") + t
    data = schedule.to_dict()
    assert_plain(data, long_tables=False)
    again = Schedule.from_dict(data, inputs={"noise": new, "unused": torch.ones(3)})
    assert again(1) == 16.0
    new.fill_(1.0)
    assert again(1) == 4.0
    assert Schedule.from_dict(data, inputs={"noise": old}) == schedule


def test_a_missing_input_is_named():
    data = S.input(torch.tensor(1.0), "noise").to_dict()
    for inputs in (None, {}, {"other": torch.tensor(1.0)}):
        with pytest.raises(ValueError, match="no tensor for input 'noise'"):
            Schedule.from_dict(data, inputs=inputs)
    with pytest.raises((TypeError, ValueError), match="one element"):
        Schedule.from_dict(data, inputs={"noise": torch.ones(2)})


# Malformed data

STEP = ["step", None, []]


@pytest.mark.parametrize(
    "nodes",
    [
        None,
        [],
        5,
        "step",
        [None],
        [5],
        ["step"],
        [[]],
        [["step"]],
        [["step", None]],
        [["step", None, [], []]],
        [["step", None, None]],
        [["step", None, 5]],
        [["step", None, [0]]],
        [["stop", None, []]],
        [[None, None, []]],
        [[0, None, []]],
        [[["step"], None, []]],
        [["constant", None, []]],
        [["constant", "1", []]],
        [["constant", True, []]],
        [["constant", [1.0], []]],
        [["constant", 10**400, []]],
        [["input", "noise", []]],
        [["input", None, []]],
        [["input", ["noise"], []]],
        [STEP, ["add", None, []]],
        [STEP, ["add", None, [0]]],
        [STEP, ["add", None, [0, 0, 0]]],
        [STEP, ["add", None, [0, 1]]],
        [STEP, ["add", None, [0, 2]]],
        [STEP, ["add", None, [0, -1]]],
        [STEP, ["add", None, [0, 0.0]]],
        [STEP, ["add", None, [0, True]]],
        [STEP, ["add", None, [0, "0"]]],
        [STEP, ["add", None, [0, None]]],
        [STEP, ["cos", None, [0, 0]]],
        [STEP, ["select", None, [0, 0]]],
        [STEP, ["op_count", None, [0]]],
        [STEP, ["__class__", None, [0]]],
        [STEP, ["step", None, [0]]],
        [STEP, ["constant", 1.0, [0]]],
        [STEP, ["table", None, [0]]],
        [STEP, ["table", [], [0]]],
        [STEP, ["table", [1.0, math.nan], [0]]],
        [STEP, ["table", [[1.0]], [0]]],
        [STEP, ["table", ["a"], [0]]],
        [STEP, ["table", "1", [0]]],
        [STEP, ["table", {"a": 1.0}, [0]]],
        [STEP, ["table", torch.ones(2, 2), [0]]],
        [STEP, ["table", torch.ones(0), [0]]],
        [STEP, ["table", [1.0], []]],
        [STEP, ["table", [1.0], [0, 0]]],
        {"a": 1},
    ],
    ids=lambda nodes: repr(nodes)[:40],
)
def test_malformed_nodes(nodes):
    with pytest.raises(ValueError, match=r"^data"):
        Schedule.from_dict({"version": 1, "nodes": nodes})


@pytest.mark.parametrize("version", [None, 0, 2, "1", 1.5])
def test_other_versions_are_refused(version):
    with pytest.raises(ValueError, match=r"^data: version"):
        Schedule.from_dict({"version": version, "nodes": [STEP]})
    with pytest.raises(ValueError, match=r"^data: version"):
        Schedule.from_dict({"nodes": [STEP]})


@pytest.mark.parametrize("data", [None, [], "step", 5, [STEP]])
def test_what_is_no_dictionary_is_refused(data):
    with pytest.raises(TypeError, match=r"^data"):
        Schedule.from_dict(data)


def test_a_malformed_node_is_shown():
    with pytest.raises(ValueError, match=r"node 1 \['add', None, \[0\]\].* takes 2 arguments"):
        Schedule.from_dict({"version": 1, "nodes": [STEP, ["add", None, [0]]]})


def test_too_deep_data_is_refused():
    nodes = [STEP, *(["sqrt", None, [i]] for i in range(300))]
    with pytest.raises(ValueError, match="deep"):
        Schedule.from_dict({"version": 1, "nodes": nodes})
