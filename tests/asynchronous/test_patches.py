"""What changed in a table is uploaded in the order of the stream, and nothing else is."""

import numpy as np
import pytest
import torch
from lib.late_device import LateQueue

from lrfused.device.patches import APART, Patched

CPU = torch.device("cpu")


@pytest.fixture
def late():
    return LateQueue()


def changed(rng, words):
    """Some of the words are others, a few more or less of them."""
    size = max(1, len(words) + int(rng.numpy.integers(-3, 4)))
    new = np.resize(words, size)
    places = rng.numpy.integers(0, size, int(rng.numpy.integers(0, 4)))
    new[places] = rng.numpy.integers(-9, 9, len(places))
    return new


@pytest.mark.parametrize("size", [1, 5, 3 * APART])
def test_the_device_has_each_content_when_it_has_come_so_far(rng, late, size):
    patched = Patched(CPU, late)
    words = rng.numpy.integers(-9, 9, size)
    for _ in range(40):
        tensor = patched.write(words)
        rooms = len(late.waiting)
        late.run(int(rng.numpy.integers(0, rooms + 1)))
        if not late.waiting:
            assert tensor.tolist() == words.tolist()
        words = changed(rng, words)
    tensor = patched.write(words)
    late.run()
    assert tensor.tolist() == words.tolist()


def test_only_what_differs_is_uploaded():
    patched = Patched(CPU)
    words = np.arange(10 * APART)
    patched.write(words)
    assert patched.uploaded == words.size
    patched.write(words.copy())
    assert patched.uploaded == 0
    words[[3, 5, 7 * APART]] = -1
    assert patched.write(words).tolist() == words.tolist()
    assert patched.uploaded == 3 + 1  # 3 to 5 is one range
    longer = np.concatenate((words, [1, 2]))
    assert patched.write(longer).tolist() == longer.tolist()
    assert patched.uploaded == 2
    assert patched.write(words).tolist() == words.tolist()
    assert patched.uploaded == 0


def test_the_array_stays_while_the_words_fit():
    patched = Patched(CPU)
    first = patched.write(np.arange(100)).data_ptr()
    assert patched.write(np.arange(105)).data_ptr() == first
    assert patched.write(np.arange(200)).data_ptr() != first
    assert patched.uploaded == 200


def test_nothing_has_an_address():
    assert Patched(CPU).write(np.zeros(0, dtype=np.int64)).data_ptr()


def test_an_interrupted_upload_is_repeated(late, monkeypatch):
    patched = Patched(CPU, late)
    words = np.arange(4)
    patched.write(words)
    late.run()

    def interrupted(target, source):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(late, "copy", interrupted)
        patched.write(words + 1)
    tensor = patched.write(words + 1)
    late.run()
    assert tensor.tolist() == [1, 2, 3, 4]
