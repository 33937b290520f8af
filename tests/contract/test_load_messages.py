"""What a load says: which settings a checkpoint was written with, and which values count now."""

import copy
import inspect
import warnings

import pytest
from lib.contract import make_parameters, parameters_of, run, twin, warmup
from lib.optimizers import without_counts

from lrfused import LossScale, schedules

PEAK = 0.25


def saved_by(rng, kind, **options):
    """A checkpoint after 3 steps, and its parameters."""
    opt = kind.ours(make_parameters(rng), **options)
    run(rng, 3, opt)
    return copy.deepcopy(opt.state_dict()), parameters_of(opt)


def warnings_of_loading(kind, saved, params, load_schedules=False, **options):
    """The optimizer after loading, and what it said, without the beginning that is always there."""
    opt = kind.ours(twin(params), **options)
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
        "weight_decay_mode of group 0 was 'independent' ({decay!r} is kept)",
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
def test_options_are_named_as_the_caller_wrote_them(rng, kind, then, now, said):
    """Another option: one warning with the argument, the stored value and the one in force."""
    saved, params = saved_by(rng, kind, **then)
    opt, message = warnings_of_loading(kind, saved, params, **now)
    usual = inspect.signature(kind.cls).parameters["weight_decay_mode"].default
    assert message == said.replace("{decay!r}", repr(usual))
    run(rng, 1, opt)


@pytest.mark.parametrize(("then", "now", "said"), OPTIONS.values(), ids=OPTIONS)
def test_the_same_options_say_nothing(rng, kind, then, now, said):
    """No word where nothing differs."""
    saved, params = saved_by(rng, kind, **then)
    assert warnings_of_loading(kind, saved, params, **then)[1] == ""
    saved, params = saved_by(rng, kind, **now)
    assert warnings_of_loading(kind, saved, params, **now)[1] == ""


def test_a_schedule_where_a_number_is_now(rng, kind):
    """Its value at the time is in the group, as torch loads it: the message says that it counts."""
    saved, params = saved_by(rng, kind, lr=warmup(PEAK))
    value = warmup(PEAK)(3)
    opt, message = warnings_of_loading(kind, saved, params, lr=1e-3)
    assert (
        message == f"lr of group 0 was a schedule (its value then, {value}, is taken as a number)"
    )
    assert opt.param_groups[0]["lr"] == value
    run(rng, 2, opt)
    assert opt.metrics()["lr"] == [value]


def test_a_number_where_a_schedule_is_now(rng, kind):
    """The schedule leads, from the checkpoint's step on."""
    saved, params = saved_by(rng, kind, lr=0.5)
    opt, message = warnings_of_loading(kind, saved, params, lr=warmup(PEAK))
    assert message == "lr of group 0 was the number 0.5 (this optimizer's schedule is kept)"
    run(rng, 1, opt)
    assert opt.metrics()["lr"] == [warmup(PEAK)(3)]


def test_another_schedule(rng, kind):
    """This optimizer's leads; with load_schedules=True the stored one does, and nothing is said."""
    slow, quick = schedules.linear(0.5, 0.9, 30), schedules.linear(0.5, 0.9, 20)
    has_betas = "betas" in kind.hyperparameters

    def options(schedule):
        return {"betas": (schedule, 0.99)} if has_betas else {"weight_decay": schedule}

    def value(opt):
        group = opt.param_groups[0]
        return group["betas"][0] if has_betas else group["weight_decay"]

    saved, params = saved_by(rng, kind, **options(quick))
    opt, message = warnings_of_loading(kind, saved, params, **options(slow))
    name = "betas[0]" if has_betas else "weight_decay"
    assert message == f"{name} of group 0 was another schedule (this optimizer's is kept)"
    assert value(opt) == slow(3)
    opt, message = warnings_of_loading(kind, saved, params, load_schedules=True, **options(slow))
    assert message == "" and value(opt) == quick(3)


def test_a_clips_schedule_is_taken_only_where_there_is_a_clip(rng, kind):
    """load_schedules=True takes a stored threshold's schedule over a threshold, and where nothing
    is clipped says that it is not taken."""
    falling = schedules.linear(1e-3, 1e-6, 5)
    saved, params = saved_by(rng, kind, max_grad_norm=falling)
    opt, message = warnings_of_loading(kind, saved, params, load_schedules=True, max_grad_norm=1e9)
    assert message == ""
    run(rng, 1, opt)
    metrics = opt.metrics()
    expected = falling(3) / (metrics["grad_norm"] + 1e-6)
    assert metrics["clip_coefficient"] == pytest.approx(expected, rel=1e-12)
    opt, message = warnings_of_loading(kind, saved, params, load_schedules=True)
    assert message == "max_grad_norm was a schedule (None is kept)"


def test_numbers_are_the_checkpoints_without_a_word(rng, kind):
    """lr, betas, eps, weight_decay that are numbers on both sides: the checkpoint's, as torch."""
    saved, params = saved_by(rng, kind, lr=0.5, **kind.numbers)
    opt, message = warnings_of_loading(kind, saved, params)
    assert message == ""
    group = opt.param_groups[0]
    assert {key: group[key] for key in ("lr", *kind.numbers)} == {"lr": 0.5, **kind.numbers}


def test_many_differences_are_one_sentence_that_ends(rng, kind):
    """100 groups that all differ: the first are named, the others counted."""
    params = make_parameters(rng, shapes=[(2,)] * 100)
    opt = kind.ours([{"params": [p]} for p in params], lr=warmup(0.1))
    other = kind.ours([{"params": [p]} for p in twin(params)], lr=warmup(0.2))
    with pytest.warns(UserWarning, match=r"lr of group 11 .*; and 88 more$") as seen:
        other.load_state_dict(opt.state_dict())
    assert len(seen) == 1 and "group 12" not in str(seen[0].message)


def test_a_checkpoint_of_torchs_says_nothing(rng, kind):
    """It was written with no settings of ours."""
    theirs = kind.theirs(make_parameters(rng), lr=0.5)
    run(rng, 3, theirs)
    lr = {"lr": warmup()} if kind.counts else {}  # else it says that it does not know the step
    options = {**lr, "max_grad_norm": 1.0, "loss_scale": "dynamic"}
    message = warnings_of_loading(kind, theirs.state_dict(), parameters_of(theirs), **options)[1]
    assert message == ""


@without_counts
def test_a_checkpoint_that_does_not_say_the_step_is_named(rng, kind):
    """torch.optim.SGD's and Lion's into an optimizer with a schedule: one warning, which names
    set_step; what it says works."""
    theirs = kind.theirs(make_parameters(rng), lr=0.5)
    run(rng, 3, theirs)
    opt = kind.ours(twin(parameters_of(theirs)), lr=warmup())
    run(rng, 2, opt)
    message = r"does not say how many steps.*go on at step 2; optimizer.set_step\(n\) says it"
    with pytest.warns(UserWarning, match=message) as seen:
        opt.load_state_dict(theirs.state_dict())
    assert len(seen) == 1 and seen[0].filename == __file__
    assert opt.param_groups[0]["lr"] == warmup()(2)
    opt.set_step(3)
    assert opt.param_groups[0]["lr"] == warmup()(3) and opt.metrics()["steps"] == 3
    other = kind.ours(twin(parameters_of(theirs)), lr=warmup())
    other.set_step(3)
    other.load_state_dict(theirs.state_dict())
    assert other.param_groups[0]["lr"] == warmup()(3)
