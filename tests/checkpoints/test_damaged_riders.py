"""Averages and masks of a checkpoint that cannot be taken: refused by name, nothing changed."""

import copy

import pytest
import torch
from lib.contract import (
    assert_same_run,
    assert_unchanged,
    parameters_of,
    run,
    snapshot,
)

from .riders import (
    AVERAGE,
    EMA,
    MASK,
    another,
    assert_same_masks,
    built,
    masked,
    written,
)

BFLOAT16 = 4  # the place of the first parameter of that dtype


class Tagged(torch.Tensor):
    """A subclass of Tensor."""


def filled(value, dtype=torch.float32):
    return lambda shape: torch.full(shape, value, dtype=dtype)


def freed(shape):
    made = torch.ones(shape, dtype=torch.bool)
    made.untyped_storage().resize_(0)
    return made


BAD_MASKS = {
    "another shape": lambda _: torch.ones(2, dtype=torch.bool),
    "its transpose": lambda shape: torch.ones(shape[::-1], dtype=torch.bool),
    "nan": filled(torch.nan),
    "a fraction": filled(0.5),
    "two": filled(2, torch.int64),
    "sparse": lambda shape: torch.ones(shape).to_sparse(),
    "meta": lambda shape: torch.ones(shape, dtype=torch.bool, device="meta"),
    "subclass": lambda shape: torch.ones(shape).as_subclass(Tagged),
    "freed": freed,
    "a list": lambda _: [True],
    "a number": lambda _: 1.0,
}
BAD_AVERAGES = {
    "another shape": lambda _: torch.ones(2),
    "integers": filled(1, torch.int64),
    "complex": filled(1j, torch.complex64),
    "sparse": lambda shape: torch.ones(shape).to_sparse(),
    "a list": lambda _: [1.0],
}
BAD = [(MASK, *bad) for bad in BAD_MASKS.items()]
BAD += [(AVERAGE, *bad) for bad in BAD_AVERAGES.items()]
bad = pytest.mark.parametrize(
    ("key", "make"), [b[::2] for b in BAD], ids=[b[0] + b[1] for b in BAD]
)


@bad
def test_a_damaged_rider_is_refused_whole(rng, kind, key, make):
    """An error that names it; nothing has changed, and the run goes on."""
    opt = masked(rng, built(rng, kind, **EMA))
    plain = another(opt, kind, **EMA)
    plain.set_masks(dict(zip(parameters_of(plain)[::2], opt.masks.values(), strict=True)))
    run(rng, 3, opt, plain)
    saved = copy.deepcopy(opt.state_dict())
    saved["state"][0][MASK] = ~saved["state"][0][MASK]
    saved["state"][BFLOAT16][key] = make(tuple(parameters_of(opt)[BFLOAT16].shape))
    before = snapshot(opt)
    with pytest.raises((ValueError, TypeError), match=key):
        opt.load_state_dict(saved)
    assert_unchanged(opt, before)
    run(rng, 1, opt, plain)
    assert_same_run(opt, plain)


@pytest.mark.parametrize("make", BAD_MASKS.values(), ids=BAD_MASKS)
def test_a_damaged_mask_that_was_written_into_the_state_is_refused(rng, kind, make):
    """The step raises, and with a good one in its place the run goes on."""
    opt = masked(rng, built(rng, kind))
    run(rng, 3, opt)
    other = another(opt, kind)
    saved = copy.deepcopy(opt.state_dict())
    good = saved["state"][0][MASK]
    saved["state"][0][MASK] = make(tuple(good.shape))
    written(other, saved)
    params = [p.detach().clone() for p in parameters_of(other)]
    with pytest.raises(ValueError, match=MASK):
        run(rng, 1, other)
    assert not other.masks
    assert all(torch.equal(p, q) for p, q in zip(parameters_of(other), params, strict=True))
    other.state[parameters_of(other)[0]][MASK] = good
    run(rng, 2, opt, other)
    assert_same_run(opt, other)
    assert_same_masks(opt, other)


def by_load(opt, saved):
    opt.load_state_dict(saved)


@pytest.mark.parametrize("does", [by_load, written])
@pytest.mark.parametrize("skipped", [0, 1], ids=["the same masks", "one less"])
def test_a_new_mask_is_refused_after_a_capture(rng, kind, monkeypatch, does, skipped):
    """A captured graph reads the masks that there were, which are changed in place; another
    parameter's is refused, however it was loaded."""
    opt = masked(rng, built(rng, kind))
    run(rng, 2, opt)
    other = another(opt, kind)
    params = parameters_of(other)[::2][skipped:]
    other.set_masks({p: torch.ones_like(p, dtype=torch.bool) for p in params})
    run(rng, 1, other)
    books = other._engine.bookkeeping
    places = {p: packed.bits.data_ptr() for p, packed in books.masks._packed.items()}
    monkeypatch.setattr(type(books), "is_captured", property(lambda _: True))
    if skipped:
        before = other.masks
        with pytest.raises(ValueError, match=f"{MASK} .* captured"):
            does(other, copy.deepcopy(opt.state_dict()))
            other.sync_mirrors()
        assert all(torch.equal(mask, before[p]) for p, mask in other.masks.items())
    else:
        does(other, copy.deepcopy(opt.state_dict()))
        other.sync_mirrors()
        assert_same_masks(other, opt)
    assert places == {p: packed.bits.data_ptr() for p, packed in books.masks._packed.items()}
