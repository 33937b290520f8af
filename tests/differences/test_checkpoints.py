"""State and checkpoints."""

import copy

import pytest
import torch
from lib.runs import needs_cpp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.nn import Parameter

from lrfused import schedules

from .both import OURS, TORCH, ones, state, step, stepped


def test_saved_step_counts_are_copies():
    """The step counts in `state_dict()` are copies, because an optimizer that loads them could
    otherwise count in the memory of this one. torch's are the optimizer's own tensors, and go on
    counting."""
    for kind, expected in ((TORCH, 2), (OURS, 1)):
        opt = stepped(kind)
        saved = opt.state_dict()
        step(opt)
        assert saved["state"][0]["step"] == expected


def test_two_optimizers_may_load_one_checkpoint():
    """`load_state_dict` copies, so that several optimizers can load one dictionary and be
    independent of each other. torch uses the tensors of the dictionary where their dtype and device
    fit."""
    for kind, is_shared in ((TORCH, True), (OURS, False)):
        saved = stepped(kind).state_dict()
        first, second = kind([ones()]), kind([ones()])
        first.load_state_dict(saved)
        second.load_state_dict(saved)
        before = state(second)["exp_avg"].clone()
        step(first)
        assert torch.equal(state(second)["exp_avg"], before) is not is_shared


def test_loading_keeps_the_memory_of_the_state():
    """`load_state_dict` writes the moments into the memory that is in use, so that a captured CUDA
    graph goes on with them. torch replaces the tensors."""
    for kind, is_kept in ((TORCH, False), (OURS, True)):
        opt = stepped(kind)
        address = state(opt)["exp_avg"].data_ptr()
        opt.load_state_dict(copy.deepcopy(opt.state_dict()))
        assert (state(opt)["exp_avg"].data_ptr() == address) is is_kept


def test_moments_keep_their_dtype_on_loading():
    """Loaded moments keep the dtype that they were saved in, because float32 moments beside
    bfloat16 parameters are worth keeping. torch converts them to the parameter's dtype.

    To convert them, register a `load_state_dict` pre-hook."""
    for kind, dtype in ((TORCH, torch.bfloat16), (OURS, torch.float32)):
        opt = kind([ones(dtype=torch.bfloat16)])
        opt.load_state_dict(stepped(kind).state_dict())
        assert state(opt)["exp_avg"].dtype == dtype


def test_moments_may_have_another_dtype_than_the_parameter():
    """Moments may have another floating-point dtype than their parameter, because they are
    converted as they are read and written. torch raises in the middle of the step."""
    for kind in (TORCH, OURS):
        opt = stepped(kind, [ones(dtype=torch.bfloat16)])
        for key in ("exp_avg", "exp_avg_sq"):
            state(opt)[key] = state(opt)[key].float()
        if kind is TORCH:
            with pytest.raises(RuntimeError, match="dtype"):
                step(opt)
        else:
            step(opt)
            assert state(opt)["exp_avg"].dtype == torch.float32 and state(opt)["step"] == 2


def without_a_moment(saved):
    del saved["state"][0]["exp_avg"]


def with_another_shape(saved):
    saved["state"][0]["exp_avg"] = torch.zeros(7)


def with_a_parameter_more(saved):
    saved["state"][7] = saved["state"][0]


@pytest.mark.parametrize("broken", [without_a_moment, with_another_shape, with_a_parameter_more])
def test_checkpoints_are_checked_when_they_are_loaded(broken):
    """`load_state_dict` refuses a checkpoint in which a moment is missing or has another shape, or
    that has state under a number that no parameter has, and then changes nothing. torch loads it;
    the next step raises, or the extra state stays."""
    for kind in (TORCH, OURS):
        opt = stepped(kind)
        saved = copy.deepcopy(opt.state_dict())
        broken(saved)
        if kind is TORCH:
            opt.load_state_dict(saved)
        else:
            with pytest.raises(ValueError):
                opt.load_state_dict(saved)
            step(opt)
            assert state(opt)["step"] == 2


def test_an_empty_dictionary_changes_nothing():
    """`load_state_dict({})` does nothing: an empty checkpoint has nothing to load. torch raises
    KeyError."""
    with pytest.raises(KeyError):
        stepped(TORCH).load_state_dict({})
    opt = stepped(OURS)
    opt.load_state_dict({})
    assert state(opt)["step"] == 1


def test_a_schedule_leads_over_a_loaded_lr():
    """A Schedule that the constructor was given still leads after a checkpoint was loaded, at the
    loaded count, because a resumed run should follow the code that it runs. With torch the loaded
    `lr` replaces the constructor's.

    `load_state_dict(..., load_schedules=True)` takes the schedules of the checkpoint."""
    saved = stepped(TORCH, lr=0.5).state_dict()
    theirs, ours = TORCH([ones()], lr=0.1), OURS([ones()], lr=schedules.linear(0.0, 1.0, 4))
    theirs.load_state_dict(saved)
    ours.load_state_dict(saved)
    assert theirs.param_groups[0]["lr"] == 0.5 and ours.param_groups[0]["lr"] == 0.25


def test_a_step_that_only_allocates_does_not_count():
    """The first step allocates the state and counts nothing, if every `lr` and every gradient is 0,
    because torch.distributed.checkpoint takes such a step to have something to load into. torch
    counts it as a step."""
    for kind, expected in ((TORCH, 1), (OURS, 0)):
        opt = kind([ones()], lr=0.0)
        step(opt, 0.0)
        assert state(opt)["step"] == expected and not state(opt)["exp_avg"].any()


@needs_cpp
def test_state_made_in_inference_mode_can_be_stepped():
    """State that was made by a first step inside `torch.inference_mode()` can be updated outside of
    it. torch's later steps raise."""
    for kind in (TORCH, OURS):
        opt = kind([Parameter(torch.ones(3))])
        with torch.inference_mode():
            step(opt)
        if kind is TORCH:
            with pytest.raises(RuntimeError, match="nference"):
                step(opt)
        else:
            step(opt)
            assert state(opt)["step"] == 2


def test_a_flattened_state_of_torchs_lacks_keys():
    """A state of torch's that was flattened (`flatten_optimizer_state_dict=True`) is refused with
    KeyError if it is given as it is, because torch asks it for every key that stands in the groups,
    and there are a few more here. torch loads it.

    `like = get_optimizer_state_dict(model, opt, options=options)`, `like.update(theirs)`, and then
    set `like`."""

    def trained(kind):
        model = torch.nn.Linear(3, 2)
        return model, stepped(kind, list(model.parameters()))

    options = StateDictOptions(flatten_optimizer_state_dict=True)
    theirs = get_optimizer_state_dict(*trained(TORCH), options=options)
    set_optimizer_state_dict(*trained(TORCH), theirs, options=options)
    model, opt = trained(OURS)
    with pytest.raises(KeyError, match="lrfused"):
        set_optimizer_state_dict(model, opt, theirs, options=options)
    step(opt)
    like = get_optimizer_state_dict(model, opt, options=options)
    like.update(theirs)
    set_optimizer_state_dict(model, opt, like, options=options)
    assert state(opt)["step"] == 1
