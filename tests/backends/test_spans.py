"""Which tensors share memory, as tensors come and go: against a plain comparison of bytes."""

import pytest
import torch

from lrfused.memory.spans import PARAMS, STATE, Spans


def random_view(rng, storage):
    """A view of a storage without elements on top of each other."""
    n = rng.numpy
    kind = n.integers(4)
    if kind == 0:  # a range
        start = int(n.integers(0, 60))
        return storage[start : start + int(n.integers(1, 5))]
    if kind == 1:  # a column
        return storage.view(8, 8)[int(n.integers(0, 8)) :: 1 + int(n.integers(3)), n.integers(0, 8)]
    if kind == 2:  # a block
        row, column = n.integers(0, 7, 2)
        return storage.view(8, 8)[row : row + 2, column : column + 2].t()
    return storage[:0]


def bytes_of(view, storage):
    marks = torch.zeros(len(storage), dtype=torch.bool)
    marks.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(True)
    return marks


@pytest.mark.parametrize("what", [PARAMS, STATE])
def test_as_a_plain_comparison(rng, what):
    storage, other = torch.zeros(64), torch.zeros(64)
    spans, held = Spans(), {}
    refused = 0
    for owner in range(300):
        own = storage if rng.numpy.integers(4) else other
        view = random_view(rng, own)
        shares = any(
            (bytes_of(view, own) & bytes_of(x, own)).any() for x, at in held.values() if at is own
        )
        if shares:
            refused += 1
            with pytest.raises(ValueError, match=f"{what} share memory, of shapes"):
                spans.put([(owner, what, view)])
        else:
            spans.put([(owner, what, view)])
            held[owner] = (view, own)
        if rng.numpy.integers(3) == 0 and held:
            gone = list(held)[int(rng.numpy.integers(len(held)))]
            spans.drop(gone)
            del held[gone]
    assert 30 < refused < 290


def test_one_that_moved_is_dropped_from_where_it_was():
    spans, x = Spans(), torch.zeros(4)
    before = x.data
    spans.put([(0, STATE, x)])
    x.data = torch.zeros(9)
    spans.drop(0)
    spans.put([(1, STATE, before), (2, STATE, x)])


def test_a_parameter_and_a_state_tensor_are_named_together():
    spans, x = Spans(), torch.zeros(4)
    spans.put([(0, PARAMS, x)])
    with pytest.raises(ValueError, match="params and state: two tensors share memory"):
        spans.put([(1, STATE, x[2:])])
