"""Checkpoints of averages and masks between optimizers that have them, do not, or are torch's."""

import copy
import json

import pytest
import torch
from lib.contract import (
    assert_same_run,
    make_parameters,
    parameters_of,
    run,
    twin,
)
from lib.optimizers import SGD, that_counts

from .riders import (
    AVERAGE,
    EMA,
    MASK,
    another,
    assert_same_masks,
    averages_of,
    built,
    masked,
    written,
)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("options", [{}, EMA], ids=["masks", "masks and averages"])
def test_masks_that_were_set_before_the_first_step_go_on(rng, kind, steps, options):
    """Saved before or after it, in a file that is read under weights_only; into an optimizer that
    had no masks. SGD's first update has no dampening, though the state is there before it."""
    opt = masked(rng, built(rng, kind, **options))
    run(rng, steps, opt)
    other = another(opt, kind, **options)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert_same_masks(opt, other)
    run(rng, 3, opt, other)
    assert_same_run(opt, other)


def test_a_mask_is_a_bool_tensor_in_checkpoints_and_none_in_memory(rng, kind):
    """In memory its bits are elsewhere; the key is there, as ways of torch go by the names of the
    present state, and goes with the mask."""
    opt = masked(rng, built(rng, kind))
    run(rng, 2, opt)
    saved, masks = opt.state_dict()["state"], opt.masks
    for index, param in enumerate(parameters_of(opt)):
        state = opt.state.get(param, {})
        assert (MASK in state) == (param in masks) and state.get(MASK) is None
        stored = saved.get(index, {}).get(MASK)
        assert (stored is None) == (param not in masks)
        assert stored is None or (stored.dtype == torch.bool and torch.equal(stored, masks[param]))
    opt.set_masks(dict.fromkeys(masks))
    assert not any(MASK in state for state in opt.state.values())
    assert not any(MASK in state for state in opt.state_dict()["state"].values())


def test_a_first_state_with_a_mask_steps_in_torchs_optimizer(rng, kind):
    """A checkpoint from before the first step, with masks: torch's goes on as from nothing. The
    masks are kept and not applied; SGD's momentum begins as after torch's own allocation, with a
    buffer of zeros."""
    options = {**kind.options, **({"dampening": 0.0} if kind.cls is SGD.cls else {})}
    params = make_parameters(rng)
    opt = masked(rng, kind.cls(params, lr=0.02, **options))
    theirs = [kind.counterpart(twin(params), lr=0.02, **options) for _ in range(2)]
    theirs[0].load_state_dict(opt.state_dict())
    run(rng, 3, *theirs)
    pairs = zip(parameters_of(theirs[0]), parameters_of(theirs[1]), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("steps", [0, 2])
def test_through_torchs_optimizer_and_back(rng, kind, steps):
    """torch casts what is in a state to the parameter's dtype: masks survive that; an average of
    16-bit parameters comes back rounded to it, as float32. An average does not follow torch's
    steps."""
    opt = masked(rng, built(rng, kind, **EMA))
    run(rng, 3, opt)
    expected = {i: a.clone() for i, a in averages_of(opt).items()}
    theirs = kind.theirs(twin(parameters_of(opt)), lr=0.02)
    theirs.load_state_dict(copy.deepcopy(opt.state_dict()))
    run(rng, steps, theirs)
    back = built(None, kind, twin(parameters_of(theirs)), **EMA)
    with_step = steps or kind.counts
    back.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert_same_masks(opt, back)
    assert with_step or back.metrics()["steps"] == 3
    for i, (param, average) in enumerate(
        zip(parameters_of(back), averages_of(back).values(), strict=True)
    ):
        assert average.dtype == torch.float32
        assert torch.equal(average, expected[i].to(param.dtype).float())
    run(rng, 1, back)
    for param, mask in back.masks.items():
        assert not param[~mask].any() and not back.state[param][AVERAGE][~mask].any()


def test_averages_are_kept_by_an_optimizer_without_them(rng, kind):
    """As torch keeps keys that it does not know: unchanged, into the next checkpoint; the warning
    says what the options are. Masks are set in any case."""
    opt = masked(rng, built(rng, kind, **EMA))
    run(rng, 3, opt)
    other = another(opt, kind)
    with pytest.warns(UserWarning, match="ema_decay"):
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert_same_masks(opt, other)
    expected = {i: a.clone() for i, a in averages_of(opt).items()}
    run(rng, 2, other)
    with pytest.raises(ValueError, match="ema_decay"), other.averaged():
        pass
    saved = other.state_dict()["state"]
    assert expected.keys() == averages_of(other).keys()
    assert all(torch.equal(saved[i][AVERAGE], average) for i, average in expected.items())


def without_riders(saved):
    """As a version without riders wrote it."""
    for group in saved["param_groups"]:
        text = json.loads(group["lrfused"])
        for name in ("ema_decay", "ema_update_every"):
            text["options"].pop(name, None)
        group["lrfused"] = json.dumps(text)
    return saved


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("used", [0, 4])
@pytest.mark.filterwarnings(
    "ignore:load_state_dict. the checkpoint was written with other settings"
)
def test_a_checkpoint_without_riders_leaves_masks_and_begins_averages(rng, kind, is_old, used):
    """Masks that it does not have stay; averages begin with the next update, as copies."""
    opt = built(rng, kind)
    run(rng, 3, opt)
    saved = copy.deepcopy(opt.state_dict())
    saved = without_riders(saved) if is_old else saved
    other = masked(rng, another(opt, kind, **EMA))
    run(rng, used, other)
    masks = other.masks
    other.load_state_dict(saved)
    assert other.masks.keys() == masks.keys()
    assert all(torch.equal(other.masks[p], mask) for p, mask in masks.items())
    run(rng, 1, other)
    for index, average in averages_of(other).items():
        param = parameters_of(other)[index]
        assert torch.equal(average, param.float())
        assert param not in masks or not param[~masks[param]].any()


def test_masks_that_were_written_into_the_state_are_taken(rng, kind):
    """Without load_state_dict; the step takes them out."""
    opt = masked(rng, built(rng, kind, **EMA))
    run(rng, 3, opt)
    other = another(opt, kind, **EMA)
    written(other, copy.deepcopy(opt.state_dict()))
    run(rng, 2, opt, other)
    assert_same_run(opt, other)
    assert_same_masks(opt, other)


@that_counts
def test_a_mask_alone_is_a_state(rng, kind):
    """A state that has nothing but a mask is that of a parameter without updates."""
    opt = masked(rng, built(rng, kind))
    saved = copy.deepcopy(opt.state_dict())
    saved["state"] = {i: {MASK: state[MASK]} for i, state in saved["state"].items()}
    other = another(opt, kind)
    other.load_state_dict(saved)
    run(rng, 3, opt, other)
    assert_same_run(opt, other)
    assert_same_masks(opt, other)
