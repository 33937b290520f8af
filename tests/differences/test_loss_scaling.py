"""GradScaler and loss scaling."""

import math

import pytest
import torch
from torch.amp import GradScaler
from torch.optim.lr_scheduler import LambdaLR

from lrfused import schedules

from .both import OURS, TORCH, ones, parameter, state, step


def scaled_step(opt, loss=None, unscale=False):
    """Backward of a loss (the sum, unless given) and a step through a GradScaler of scale 1024."""
    scaler = GradScaler("cpu", init_scale=1024.0)
    scaler.scale(parameter(opt).sum() if loss is None else loss(parameter(opt))).backward()
    if unscale:
        scaler.unscale_(opt)
    scaler.step(opt)
    scaler.update()
    return opt


def test_gradients_stay_scaled():
    """After `scaler.step(optimizer)` the gradients are still scaled, because the step unscales them
    only as it reads them. torch leaves unscaled gradients, whether it is fused or not.

    `scaler.unscale_(optimizer)` before the step, `write_grads=True`, or `amp_scaling=False`, which
    leaves the unscaling to the scaler."""
    assert parameter(scaled_step(TORCH([ones()]))).grad.tolist() == [1.0] * 3
    assert parameter(scaled_step(TORCH([ones()], fused=True))).grad.tolist() == [1.0] * 3
    ours = scaled_step(OURS([ones()]))
    assert parameter(ours).grad.tolist() == [1024.0] * 3
    assert state(ours)["exp_avg"].tolist() == pytest.approx([0.1] * 3)
    for options in ({"write_grads": True}, {"amp_scaling": False}):
        assert parameter(scaled_step(OURS([ones()], **options))).grad.tolist() == [1.0] * 3
    assert parameter(scaled_step(OURS([ones()]), unscale=True)).grad.tolist() == [1.0] * 3


def test_step_is_called_although_it_is_skipped():
    """A GradScaler calls `step()` for a skipped step, too, because the step itself decides without
    waiting for the device; hooks and wrappers of `step()` are called. torch's is called only if it
    is fused.

    `metrics()["skipped_steps"]` counts the skipped ones. `amp_scaling=False`, if a framework counts
    calls of `step()`."""
    cases = (
        (TORCH, {}, 0),
        (TORCH, {"fused": True}, 1),
        (OURS, {}, 1),
        (OURS, {"amp_scaling": False}, 0),
    )
    for kind, options, expected in cases:
        opt, calls = kind([ones()], **options), []
        opt.register_step_pre_hook(lambda *_, calls=calls: calls.append(1))
        scaled_step(opt, lambda p: p.sum() * math.inf)
        assert len(calls) == expected and parameter(opt).tolist() == [1.0] * 3
        if kind is OURS:
            assert opt.metrics()["skipped_steps"] == expected and opt.metrics()["steps"] == 0


def test_a_skipped_step_does_not_move_the_schedule():
    """A skipped step leaves a schedule where it is, because nothing was learned from the batch. A
    scheduler around torch's AdamW moves on, because it sees only its own calls.

    `advance_schedule_on_skip=True` moves the schedule on as well."""
    theirs, lr = TORCH([ones()], lr=1.0), schedules.linear(1.0, 0.0, 4)
    scheduler = LambdaLR(theirs, lambda step: 1 - step / 4)
    ours = OURS([ones()], lr=lr)
    moving = OURS([ones()], lr=lr, advance_schedule_on_skip=True)
    for factor in (1.0, math.inf):
        for opt in (theirs, ours, moving):
            opt.zero_grad()
            scaled_step(opt, lambda p, factor=factor: p.sum() * factor)
        scheduler.step()
    assert [opt.param_groups[0]["lr"] for opt in (theirs, ours, moving)] == [0.5, 0.75, 0.5]


def test_float16_gradients_can_be_unscaled():
    """Float16 parameters may be stepped through a GradScaler, because their gradients are unscaled
    in float32 inside the step. With torch the scaler refuses to unscale float16 gradients, unless
    the optimizer is fused."""
    with pytest.raises(ValueError, match="FP16"):
        scaled_step(TORCH([ones(dtype=torch.float16)]))
    opt = scaled_step(OURS([ones(dtype=torch.float16)]))
    assert state(opt)["exp_avg"].tolist() == pytest.approx([0.1] * 3, rel=1e-3)


def test_grad_scale_and_found_inf_are_always_heeded():
    """The attributes `grad_scale` and `found_inf` always count, no matter who has set them, because
    the step is always the fused one. torch raises if they are set and it is not fused."""
    for kind in (TORCH, OURS):
        opt = kind([ones()])
        opt.grad_scale, opt.found_inf = torch.tensor(4.0), torch.tensor(0.0)
        if kind is TORCH:
            with pytest.raises(AssertionError):
                step(opt)
        else:
            step(opt)
            assert state(opt)["exp_avg"].tolist() == pytest.approx([0.025] * 3)


def test_the_optimizer_can_scale_the_loss():
    """The optimizer can keep the loss scale itself: the step moves it, and checkpoints carry it.
    torch needs a GradScaler beside the optimizer, saved on its own.

    `loss_scale="dynamic"` and `opt.scale(loss).backward()`, without a GradScaler."""
    assert not hasattr(TORCH, "scale")
    opt, theirs = OURS([ones()], loss_scale="dynamic"), scaled_step(TORCH([ones()]))
    for factor, scale in ((math.inf, 32768.0), (1.0, 32768.0)):
        opt.zero_grad()
        opt.scale(parameter(opt).sum() * factor).backward()
        opt.step()
        assert opt.metrics()["loss_scale"] == scale
    assert torch.allclose(parameter(opt), parameter(theirs))
    resumed = OURS([ones()], loss_scale="dynamic")
    resumed.load_state_dict(opt.state_dict())
    assert resumed.metrics()["loss_scale"] == 32768.0
