"""What a load says: which settings a checkpoint was written with, and which values count now."""

import copy
import warnings

import pytest
import torch
from lib.contract import make_parameters, parameters_of, run, twin, warmup

import lrfused
from lrfused import LossScale, schedules

PEAK = 0.25


def saved_by(rng, **options):
    """A checkpoint after 3 steps, and its parameters."""
    opt = lrfused.AdamW(make_parameters(rng), **options)
    run(rng, 3, opt)
    return copy.deepcopy(opt.state_dict()), parameters_of(opt)


def warnings_of_loading(saved, params, load_schedules=False, **options):
    """The optimizer after loading, and what it said, without the beginning that is always there."""
    opt = lrfused.AdamW(twin(params), **options)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        opt.load_state_dict(saved, load_schedules)
    start = "load_state_dict: the checkpoint was written with other settings: "
    messages = [str(w.message) for w in seen]
    assert all(message.startswith(start) for message in messages) and len(messages) <= 1
    assert all(w.filename == __file__ for w in seen)
    return opt, "".join(messages).removeprefix(start)


# What the checkpoint had, what the optimizer has, what is said.
OPTIONS = {
    "a clip": ({"max_grad_norm": 1.0}, {}, "max_grad_norm was 1.0 (None is kept)"),
    "no clip": ({}, {"max_grad_norm": 2.5}, "max_grad_norm was None (2.5 is kept)"),
    "an infinite clip": (
        {"max_grad_norm": float("inf")},
        {},
        "max_grad_norm was inf (None is kept)",
    ),
    "another norm": (
        {"max_grad_norm": 1.0},
        {"max_grad_norm": 1.0, "norm_type": float("inf")},
        "norm_type was 2.0 ('inf' is kept)",
    ),
    "a value clip": ({"clip_value": 0.5}, {}, "clip_value of group 0 was 0.5 (None is kept)"),
    "adaptive clip": ({"agc": 0.1}, {"agc": 0.2}, "agc of group 0 was 0.1 (0.2 is kept)"),
    "a decay": (
        {"weight_decay_mode": "independent"},
        {},
        "weight_decay_mode of group 0 was 'independent' ('lr' is kept)",
    ),
    "a start": ({"start_step": 2}, {}, "start_step of group 0 was 2 (0 is kept)"),
    "a policy": ({"nonfinite": "skip"}, {}, "nonfinite was 'skip' ('propagate' is kept)"),
    "accumulation": (
        {"accumulation_steps": 4},
        {"accumulation_steps": 2},
        "accumulation_steps was 4 (2 is kept)",
    ),
    "a dropped scale": ({"loss_scale": "dynamic"}, {}, "loss_scale was LossScale() (None is kept)"),
    "an added scale": (
        {},
        {"loss_scale": LossScale(init=8.0)},
        "loss_scale was None (LossScale(init=8.0) is kept)",
    ),
    "another constant": (
        {"loss_scale": 4.0},
        {"loss_scale": 2.0},
        "loss_scale was 4.0 (2.0 is kept)",
    ),
    "a clip's schedule": (
        {"max_grad_norm": schedules.linear(1.0, 0.5, 9)},
        {"max_grad_norm": 1.0},
        "max_grad_norm was a schedule (1.0 is kept)",
    ),
    "a clip's other schedule": (
        {"max_grad_norm": schedules.linear(1.0, 0.5, 9)},
        {"max_grad_norm": schedules.linear(1.0, 0.5, 8)},
        "max_grad_norm was another schedule (this optimizer's is kept)",
    ),
}


@pytest.mark.parametrize(("then", "now", "said"), OPTIONS.values(), ids=OPTIONS)
def test_options_are_named_as_the_caller_wrote_them(rng, then, now, said):
    """Another option: one warning with the argument, the stored value and the one in force."""
    saved, params = saved_by(rng, **then)
    opt, message = warnings_of_loading(saved, params, **now)
    assert message == said
    run(rng, 1, opt)


@pytest.mark.parametrize(("then", "now", "said"), OPTIONS.values(), ids=OPTIONS)
def test_the_same_options_say_nothing(rng, then, now, said):
    """No word where nothing differs."""
    saved, params = saved_by(rng, **then)
    assert warnings_of_loading(saved, params, **then)[1] == ""
    saved, params = saved_by(rng, **now)
    assert warnings_of_loading(saved, params, **now)[1] == ""


def test_a_schedule_where_a_number_is_now(rng):
    """Its value at the time is in the group, as torch loads it: the message says that it counts."""
    saved, params = saved_by(rng, lr=warmup(PEAK))
    value = warmup(PEAK)(3)
    opt, message = warnings_of_loading(saved, params, lr=1e-3)
    assert (
        message == f"lr of group 0 was a schedule (its value then, {value}, is taken as a number)"
    )
    assert opt.param_groups[0]["lr"] == value
    run(rng, 2, opt)
    assert opt.metrics()["lr"] == [value]


def test_a_number_where_a_schedule_is_now(rng):
    """The schedule leads, from the checkpoint's step on."""
    saved, params = saved_by(rng, lr=0.5)
    opt, message = warnings_of_loading(saved, params, lr=warmup(PEAK))
    assert message == "lr of group 0 was the number 0.5 (this optimizer's schedule is kept)"
    run(rng, 1, opt)
    assert opt.metrics()["lr"] == [warmup(PEAK)(3)]


def test_another_schedule(rng):
    """This optimizer's leads; with load_schedules=True the stored one does, and nothing is said."""
    saved, params = saved_by(rng, betas=(schedules.linear(0.5, 0.9, 20), 0.99))
    mine = {"betas": (schedules.linear(0.5, 0.9, 30), 0.99)}
    opt, message = warnings_of_loading(saved, params, **mine)
    assert message == "betas[0] of group 0 was another schedule (this optimizer's is kept)"
    assert opt.param_groups[0]["betas"][0] == schedules.linear(0.5, 0.9, 30)(3)
    opt, message = warnings_of_loading(saved, params, load_schedules=True, **mine)
    assert message == "" and opt.param_groups[0]["betas"][0] == schedules.linear(0.5, 0.9, 20)(3)


def test_a_clips_schedule_is_taken_only_where_there_is_a_clip(rng):
    """load_schedules=True takes a stored threshold's schedule over a threshold, and where nothing
    is clipped says that it is not taken."""
    falling = schedules.linear(1e-3, 1e-6, 5)
    saved, params = saved_by(rng, max_grad_norm=falling)
    opt, message = warnings_of_loading(saved, params, load_schedules=True, max_grad_norm=1e9)
    assert message == ""
    run(rng, 1, opt)
    metrics = opt.metrics()
    expected = falling(3) / (metrics["grad_norm"] + 1e-6)
    assert metrics["clip_coefficient"] == pytest.approx(expected, rel=1e-12)
    opt, message = warnings_of_loading(saved, params, load_schedules=True)
    assert message == "max_grad_norm was a schedule (None is kept)"


def test_numbers_are_the_checkpoints_without_a_word(rng):
    """lr, betas, eps, weight_decay that are numbers on both sides: the checkpoint's, as torch."""
    saved, params = saved_by(rng, lr=0.5, weight_decay=0.25, eps=1e-3, betas=(0.5, 0.75))
    opt, message = warnings_of_loading(saved, params)
    assert message == ""
    group = opt.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.5, 0.25, 1e-3)
    assert group["betas"] == (0.5, 0.75)


def test_many_differences_are_one_sentence_that_ends(rng):
    """100 groups that all differ: the first are named, the others counted."""
    params = make_parameters(rng, shapes=[(2,)] * 100)
    opt = lrfused.AdamW([{"params": [p]} for p in params], lr=warmup(0.1))
    other = lrfused.AdamW([{"params": [p]} for p in twin(params)], lr=warmup(0.2))
    with pytest.warns(UserWarning, match=r"lr of group 11 .*; and 88 more$") as seen:
        other.load_state_dict(opt.state_dict())
    assert len(seen) == 1 and "group 12" not in str(seen[0].message)


def test_a_checkpoint_of_torchs_says_nothing(rng):
    """It was written with no settings of ours."""
    theirs = torch.optim.AdamW(make_parameters(rng), lr=0.5)
    run(rng, 3, theirs)
    options = {"lr": warmup(), "max_grad_norm": 1.0, "loss_scale": "dynamic"}
    message = warnings_of_loading(theirs.state_dict(), parameters_of(theirs), **options)[1]
    assert message == ""
