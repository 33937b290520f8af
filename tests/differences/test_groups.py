"""param_groups and schedules."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

import lrfused
from lrfused import schedules

from .both import OURS, TORCH, ones, parameter, state, step, stepped

CARRIED = [
    "lrfused",
    "lrfused_group",
    "lrfused_clipped_steps",
    "lrfused_consecutive_skips",
    "lrfused_growth_tracker",
    "lrfused_hysteresis_tracker",
    "lrfused_loss_scale",
    "lrfused_skipped_steps",
    "lrfused_step",
]


def warmup():
    """0, 0.25, 0.5, ..."""
    return schedules.linear(0.0, 1.0, 4)


def test_scheduled_numbers_move_by_themselves():
    """A scheduled hyperparameter changes in `param_groups` with every step: what stands there is
    the value that the next step will use. With torch a number stays until the caller or a scheduler
    writes another one."""
    theirs, ours = stepped(TORCH, lr=0.5), stepped(OURS, lr=warmup())
    for shown in (0.25, 0.5, 0.75):
        assert theirs.param_groups[0]["lr"] == 0.5
        assert ours.param_groups[0]["lr"] == shown
        step(theirs)
        step(ours)


def test_a_number_over_a_schedule_is_warned_of():
    """A number that is written over a scheduled one is used, with one warning, because it mostly
    comes from a scheduler that should not be there. torch has no schedules, so it never warns.

    To return to the schedule, write back the number that stood there before."""
    theirs, ours = stepped(TORCH, lr=0.5), stepped(OURS, lr=warmup())
    before = ours.param_groups[0]["lr"]
    theirs.param_groups[0]["lr"] = ours.param_groups[0]["lr"] = 0.125
    step(theirs)
    with pytest.warns(UserWarning, match="overrides its schedule"):
        step(ours)
    assert theirs.param_groups[0]["lr"] == ours.param_groups[0]["lr"] == 0.125
    ours.param_groups[0]["lr"] = before
    step(ours)
    assert ours.param_groups[0]["lr"] == warmup()(3)


def test_a_scheduler_starts_from_the_schedule_at_step_0():
    """A torch scheduler takes the `lr` that it finds in the group as the base of all that it
    writes; over a Schedule that is `schedule(0)`, at the start of a warmup 0 or little more, and
    not the peak. (The Trainer of transformers builds such a scheduler if it is given none.) With
    torch it finds the `lr` that was given.

    `lrfused.ReportLR(optimizer)`, where a framework wants a scheduler; or a number for `lr`."""

    def run(opt, scheduler):
        for _ in range(3):
            step(opt)
            scheduler.step()
        return scheduler.get_last_lr()

    lr = schedules.linear(0.125, 0.5, 3)
    theirs, ours, reported = TORCH([ones()], lr=0.5), OURS([ones()], lr=lr), OURS([ones()], lr=lr)
    assert run(theirs, lr_scheduler.LambdaLR(theirs, lambda _: 1.0)) == [0.5]
    with pytest.warns(UserWarning, match="overrides its schedule"):
        assert run(ours, lr_scheduler.LambdaLR(ours, lambda _: 1.0)) == [0.125]
    assert run(reported, lrfused.ReportLR(reported)) == [0.5]


def test_a_group_may_have_options_of_its_own():
    """`clip_value`, `agc`, `agc_by`, `weight_decay_mode`, `peak_lr`, `bias_correction` and
    `start_step` may be given to a single group. torch keeps such keys in the group and ignores
    them."""
    for kind, expected in ((TORCH, 0.1), (OURS, 0.05)):
        opt = stepped(kind, [{"params": [ones()], "clip_value": 0.5}, {"params": [ones()]}])
        assert state(opt)["exp_avg"].tolist() == pytest.approx([expected] * 3)
        other = opt.param_groups[1]["params"][0]
        assert opt.state[other]["exp_avg"].tolist() == pytest.approx([0.1] * 3)


def test_numbers_are_checked_at_every_step():
    """The numbers in the groups are checked at every step, whoever wrote them: an `lr` of nan
    raises an error that names group and step, and nothing changes. torch makes the parameters
    nan."""
    for kind in (TORCH, OURS):
        opt = kind([ones()])
        opt.param_groups[0]["lr"] = math.nan
        if kind is TORCH:
            step(opt)
            assert parameter(opt).isnan().all()
        else:
            with pytest.raises(RuntimeError, match=r"lr of param_groups\[0\] is nan"):
                step(opt)
            assert parameter(opt).tolist() == [1.0] * 3


def test_decay_is_always_decoupled():
    """`decoupled_weight_decay=False` in a group is ignored, because this is always AdamW. torch
    then adds the decay to the gradient, as Adam does.

    `weight_decay=0`, and the penalty as a part of the loss."""
    for kind, expected in ((TORCH, 0.5), (OURS, 0.0)):
        opt = kind([ones()], weight_decay=0.5, betas=(0.0, 0.0))
        opt.param_groups[0]["decoupled_weight_decay"] = False
        step(opt, 0.0)
        assert state(opt)["exp_avg"].tolist() == [expected] * 3


def test_amsgrad_may_be_turned_on_later():
    """`amsgrad` may be turned on in the middle of a run; its maximum then starts at 0. torch raises
    KeyError, because the state has no maximum yet."""
    for kind in (TORCH, OURS):
        opt = stepped(kind)
        opt.param_groups[0]["amsgrad"] = True
        if kind is TORCH:
            with pytest.raises(KeyError, match="max_exp_avg_sq"):
                step(opt)
        else:
            step(opt)
            assert torch.equal(state(opt)["max_exp_avg_sq"], state(opt)["exp_avg_sq"])


def test_a_captured_step_takes_no_more_groups(monkeypatch):
    """`add_param_group` raises after a step was captured in a CUDA graph, because the graph would
    never step the new group. torch adds it, and the graph goes on without it.

    Add all groups before the capture; `start_step` lets one of them wait."""
    opts = [stepped(TORCH, capturable=False), stepped(OURS)]
    monkeypatch.setattr(type(opts[1]._engine.bookkeeping), "is_captured", property(lambda _: True))
    opts[0].add_param_group({"params": [ones()]})
    with pytest.raises(RuntimeError, match="captured"):
        opts[1].add_param_group({"params": [ones()]})
    assert [len(opt.param_groups) for opt in opts] == [2, 1]


def test_the_step_counts_for_itself():
    """Besides the step count of each parameter, which bias correction uses, there is one of the
    optimizer, which schedules use: all completed steps, whichever parameters had a gradient. torch
    has those of the parameters only.

    `metrics()["steps"]` is the optimizer's count."""
    for kind in (TORCH, OURS):
        opt = stepped(kind, [ones(3), ones(4)])
        parameter(opt).grad = None
        opt.step()
        assert [float(state(opt, i)["step"]) for i in range(2)] == [1.0, 2.0]
    assert opt.metrics()["steps"] == 2 and not hasattr(TORCH, "metrics")


def test_groups_hold_what_checkpoints_carry():
    """A group has a few keys besides torch's: a string, a number and tensors of one number each,
    all starting with `lrfused`. They hold the counters, the loss scale and the schedules at the
    last `state_dict()`, because every way in which torch carries an optimizer keeps what stands in
    the groups, and only that. torch's groups hold torch's keys.

    Leave them alone; `metrics()` has the present numbers."""
    theirs, ours = (stepped(kind, [ones(3), ones(4)]) for kind in (TORCH, OURS))
    assert sorted(ours.param_groups[0].keys() - theirs.param_groups[0].keys()) == sorted(CARRIED)
    ours.state_dict()
    group = ours.param_groups[0]
    assert isinstance(group["lrfused"], str)
    for key in CARRIED[2:]:
        assert group[key].dtype == torch.float64 and group[key].dim() == 0, key
    assert group["lrfused_step"] == ours.metrics()["steps"] == 1
