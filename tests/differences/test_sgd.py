"""SGD."""

import copy

import pytest
import torch

import lrfused
from lrfused import schedules

from .both import ones, parameter, state, step, stepped

TORCH, OURS = torch.optim.SGD, lrfused.SGD
OPTIONS = {"lr": 0.5, "momentum": 0.5, "dampening": 0.75}


def test_decay_may_be_decoupled():
    """`weight_decay_mode` chooses decoupled decay; what is left out adds the decay to the gradient,
    as in torch, which has nothing else."""
    options = {"lr": 0.5, "weight_decay": 0.5}
    assert parameter(stepped(TORCH, **options))[0] == 1.0 - 0.5 * (1.0 + 0.5)
    assert parameter(stepped(OURS, **options))[0] == 1.0 - 0.5 * (1.0 + 0.5)
    decoupled = stepped(OURS, weight_decay_mode="lr", **options)
    assert parameter(decoupled)[0] == (1.0 - 0.5 * 0.5) - 0.5


def test_a_checkpoint_of_torch_says_no_step():
    """Loading a checkpoint of torch's into an optimizer with schedules warns that it does not say
    how many steps were completed, because schedules have to know. torch has no schedules inside.

    `opt.set_step(n)`, before or after the load.
    """
    theirs = stepped(TORCH, lr=0.5)
    other = TORCH([ones()], lr=0.5)
    other.load_state_dict(theirs.state_dict())
    opt = OURS([ones()], lr=schedules.linear(0.5, 0.0, steps=10))
    with pytest.warns(UserWarning, match="set_step"):
        opt.load_state_dict(theirs.state_dict())
    opt.set_step(1)
    assert opt.param_groups[0]["lr"] == 0.45


def test_scheduled_momentum_is_checked_with_nesterov():
    """With `nesterov=True` a scheduled `momentum` that falls to 0, or a scheduled `dampening` that
    leaves it, raises an error that names group and step. torch checks the numbers of the
    constructor; numbers that are written later are used without a word by both."""
    theirs = stepped(TORCH, lr=0.5, momentum=0.5, nesterov=True)
    opt = stepped(OURS, lr=0.5, momentum=0.5, nesterov=True)
    for either in (theirs, opt):
        either.param_groups[0]["momentum"] = 0.0
        step(either)
    assert torch.equal(parameter(theirs), parameter(opt))
    falling = schedules.linear(0.5, 0.0, steps=1)
    opt = stepped(OURS, lr=0.5, momentum=falling, nesterov=True)
    with pytest.raises(RuntimeError, match=r"step 1: momentum .* with nesterov=True"):
        step(opt)


def test_the_buffer_is_there_before_its_first_gradient():
    """A first step that is skipped leaves a buffer of zeros, because a device decides about the
    skip and nobody waits for it; the next gradient enters it undamped, as the first one should.
    torch has no buffer until then.

    Only where there is dampening does it matter: then a checkpoint carries whether the buffer was
    written, which torch does not read, so torch would damp that gradient.
    """
    theirs = TORCH([ones()], **OPTIONS)
    opt = OURS([ones()], nonfinite="skip", **OPTIONS)
    step(opt, float("nan"))
    assert parameter(theirs) not in theirs.state
    assert state(opt)["momentum_buffer"].tolist() == [0.0] * 3
    saved = copy.deepcopy(opt.state_dict())
    step(opt)
    step(theirs)
    assert torch.equal(state(opt)["momentum_buffer"], state(theirs)["momentum_buffer"])
    theirs = TORCH([ones()], **OPTIONS)
    theirs.load_state_dict(saved)
    step(theirs)
    assert state(theirs)["momentum_buffer"].tolist() == [0.25] * 3


def test_a_gradient_may_come_late():
    """A parameter may get its first gradient after others have theirs. torch's fused SGD raises."""
    for kind, options in ((TORCH, {"fused": True}), (OURS, {})):
        params = [ones(), ones()]
        opt = kind(params, lr=0.5, momentum=0.5, **options)
        params[0].grad = torch.ones(3)
        opt.step()
        params[1].grad = torch.ones(3)
        if kind is TORCH:
            with pytest.raises((TypeError, RuntimeError)):
                opt.step()
        else:
            opt.step()
            assert state(opt, 1)["momentum_buffer"].tolist() == [1.0] * 3


def test_the_checkpoint_of_another_optimizer_is_refused():
    """A checkpoint of AdamW, say, is refused, because SGD would go on with its numbers. torch loads
    it, and keeps a state that it never uses."""
    saved = stepped(torch.optim.AdamW).state_dict()
    TORCH([ones()], lr=0.5).load_state_dict(saved)
    with pytest.raises(ValueError, match="another optimizer"):
        OURS([ones()], lr=0.5).load_state_dict(saved)
