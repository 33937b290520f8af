"""Uploads do not wait, and no copy finds other numbers than those it was asked for."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from lib.late_device import LateQueue, NothingIsAllocated

from lrfused.device.host_to_device import SPARES, Upload

CPU = torch.device("cpu")


@pytest.fixture
def late():
    return LateQueue()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_every_copy_finds_its_numbers_however_late(rng, late, dtype):
    upload = Upload(5, dtype, CPU, late)
    rows = torch.from_numpy(rng.numpy.integers(-99, 99, (40, 5))).to(dtype)
    done = 0
    for i, row in enumerate(rows):
        tensor = upload.shared(row.numpy())
        late.run(int(rng.numpy.integers(0, 3)) if i < 30 else None)
        done = i + 1 - len(late.waiting)
        assert tensor.tolist() == (rows[done - 1].tolist() if done else [0] * 5)
    assert done == 40


def test_staging_memory_is_used_again_when_it_is_free(late):
    upload = Upload(1, torch.float64, CPU, late)
    for i in range(1, 100):
        upload.shared(np.array([float(i)]))
        late.run()
    assert len(late.rooms) == 3  # two for captures
    for i in range(10):
        upload.shared(np.array([-float(i)]))
    assert len(late.rooms) == 3 + 9


def test_what_did_not_change_is_not_uploaded(late):
    upload = Upload(2, torch.float64, CPU, late)
    for numbers in ([1.0, np.nan], [1.0, np.nan], [2.0, np.nan], [2.0, np.nan], [1.0, np.nan]):
        upload.shared(np.array(numbers))
    assert late.asked == 3


def test_bits_are_what_changes(late):
    upload = Upload(1, torch.float64, CPU, late)
    for number in (0.0, 0.0, -0.0, -0.0):
        tensor = upload.shared(np.array([number]))
    late.run()
    assert late.asked == 2 and torch.signbit(tensor).all()


def test_numbers_changed_after_the_call_do_not_count(late):
    upload = Upload(2, torch.float64, CPU, late)
    numbers = np.array([1.0, 2.0])
    tensor = upload.shared(numbers)
    numbers[:] = 7.0
    late.run()
    assert tensor.tolist() == [1.0, 2.0]
    assert upload.shared(numbers) is tensor
    late.run()
    assert tensor.tolist() == [7.0, 7.0]


@contextmanager
def capture(late):
    late.capturing = True
    with NothingIsAllocated():
        yield
    late.capturing = False


def test_each_capture_has_a_table_of_its_own(late):
    """Capture A, step, capture B: each still finds its own gradients."""
    upload = Upload(2, torch.int64, CPU, late, fixes=True)
    with capture(late):
        a = upload.fixed(np.array([1, 2]))
    shared = upload.shared(np.array([3, 4]))
    late.run()
    with capture(late):
        b = upload.fixed(np.array([5, 6]))
    late.run()
    assert [x.tolist() for x in (a, shared, b)] == [[1, 2], [3, 4], [5, 6]]
    assert len({x.data_ptr() for x in (a, shared, b)}) == 3
    assert len(late.behind) == 2 and None not in late.behind


def test_captures_with_the_same_gradients_share_a_table(late):
    upload = Upload(1, torch.int64, CPU, late, fixes=True)
    with capture(late):
        tables = [upload.fixed(np.array([i % 3])) for i in range(100)]
    assert [int(table) for table in tables] == [i % 3 for i in range(100)]
    assert len({table.data_ptr() for table in tables}) == 3


def test_too_many_captures_in_a_row_are_an_error(late):
    upload = Upload(1, torch.int64, CPU, late, fixes=True)
    with capture(late):
        tables = [upload.fixed(np.array([i])) for i in range(SPARES)]
        with pytest.raises(RuntimeError, match=f"capture: steps with {SPARES} lists of gradients"):
            upload.fixed(np.array([SPARES]))
        upload.fixed(np.array([0]))
        upload.shared(np.array([-1]))
    upload.shared(np.array([-1]))  # nothing changed, but there is room again
    with capture(late):
        tables += [upload.fixed(np.array([SPARES + i])) for i in range(SPARES)]
    assert [int(table) for table in tables] == list(range(2 * SPARES))


def test_a_change_in_a_capture_is_there_at_once_where_it_was(late):
    upload = Upload(2, torch.float64, CPU, late)
    tensor = upload.shared(np.array([1.0, 2.0]))
    late.run()
    with capture(late):
        assert upload.shared(np.array([3.0, 4.0])) is tensor
    assert tensor.tolist() == [3.0, 4.0] and not late.waiting


@pytest.fixture
def stuck(late, monkeypatch):
    """Copies beside a capture come when the device is waited for, as what is there then."""
    monkeypatch.setattr("lrfused.device.host_to_device.PATIENCE", 0.01)
    late.beside_capture = lambda after=None: nullcontext()
    late.copy = lambda target, source: late.waiting.append((target, source))
    return late


EARLIER = r"^capture: an earlier copy to the device did not end"
UNFINISHED = r"^capture: a copy to the device did not end in 0.01 s$"


def test_memory_of_a_copy_that_was_given_up_is_not_used_again(stuck):
    """Else what it writes at last would say that the next one has arrived."""
    upload = Upload(2, torch.float64, CPU, stuck, fixes=True)
    numbers = np.array([3.0, 4.0])
    stuck.capturing = True
    with pytest.raises(RuntimeError, match=UNFINISHED):
        upload.fixed(numbers)
    asked = len(stuck.waiting)
    with pytest.raises(RuntimeError, match=EARLIER):
        upload.fixed(numbers)
    assert len(stuck.waiting) == asked
    stuck.capturing = False
    upload.make_spares()
    assert not stuck.waiting
    del stuck.beside_capture, stuck.copy
    with capture(stuck):
        assert upload.fixed(numbers).tolist() == [3.0, 4.0]


def test_numbers_of_before_a_copy_that_was_given_up_are_uploaded_again(stuck):
    upload = Upload(1, torch.float64, CPU, stuck)
    upload.shared(np.array([1.0]))
    stuck.run()
    stuck.capturing = True
    with pytest.raises(RuntimeError, match=UNFINISHED):
        upload.shared(np.array([2.0]))
    stuck.capturing = False
    tensor = upload.shared(np.array([1.0]))
    stuck.run()
    assert tensor.tolist() == [1.0]
