"""Gradients and clipping."""

import pytest
import torch
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_

from .both import OURS, TORCH, ones, parameter, state, step, stepped


class Named(Parameter):
    """A kind of parameter of somebody's own."""


def test_clipping_leaves_the_gradients_alone():
    """`max_grad_norm` clips inside the step and leaves `.grad` unclipped, because writing it would
    be another pass over the memory. torch's `clip_grad_norm_` writes the clipped gradients.

    `write_grads=True`, if the clipped gradients are read later. `metrics()["grad_norm"]` is what
    `clip_grad_norm_` returns."""
    theirs, ours, writing = (
        TORCH([ones(4)]),
        OURS([ones(4)], max_grad_norm=1.0),
        OURS([ones(4)], max_grad_norm=1.0, write_grads=True),
    )
    for opt in (theirs, ours, writing):
        parameter(opt).grad = torch.ones(4)
    norm = clip_grad_norm_([parameter(theirs)], 1.0)
    for opt in (theirs, ours, writing):
        opt.step()
        assert torch.allclose(state(opt)["exp_avg"], torch.full((4,), 0.05))
    assert torch.allclose(parameter(theirs).grad, torch.full((4,), 0.5))
    assert torch.equal(parameter(ours).grad, torch.ones(4))
    assert torch.allclose(parameter(writing).grad, torch.full((4,), 0.5))
    assert ours.metrics()["grad_norm"] == norm.item() == 2.0


def test_a_gradient_may_have_another_dtype():
    """A gradient may have another floating-point dtype than its parameter, because it is converted
    as it is read. torch raises in the middle of the step."""

    def with_bfloat16(kind):
        opt = kind([ones()], lr=0.5, weight_decay=0.0)
        if hasattr(parameter(opt), "grad_dtype"):  # newer torch asks for a word in advance
            parameter(opt).grad_dtype = None
            parameter(opt).grad = torch.ones(3, dtype=torch.bfloat16)
        else:
            parameter(opt).grad = torch.ones(3)
            parameter(opt).grad.data = torch.ones(3, dtype=torch.bfloat16)
        opt.step()
        return parameter(opt)

    with pytest.raises(RuntimeError, match="dtype"):
        with_bfloat16(TORCH)
    assert with_bfloat16(OURS).tolist() == [0.5] * 3


def test_subclasses_of_tensor_are_refused():
    """Parameters and gradients of a subclass of Tensor are refused (other than Parameter and
    DTensor), because a kernel reads memory and would bypass what the subclass redefines. torch
    steps them through their own operations.

    Give the optimizer the plain tensor that the subclass wraps."""
    stepped(TORCH, [Named(torch.ones(3))])
    with pytest.raises(TypeError, match="Named"):
        stepped(OURS, [Named(torch.ones(3))])


def test_meta_parameters_are_refused():
    """A parameter on the meta device that has a gradient is refused, because there are no values to
    update. torch counts a step for it."""
    assert state(stepped(TORCH, [Parameter(torch.ones(3, device="meta"))]))["step"] == 1
    with pytest.raises(ValueError, match="meta"):
        stepped(OURS, [Parameter(torch.ones(3, device="meta"))])


def test_parameters_that_share_memory_are_refused():
    """Two parameters that have an element in common are refused, because all parameters are updated
    at the same time. torch updates one after the other, and the common element twice.

    Give the optimizer the common tensor once, as one parameter."""
    for kind in (TORCH, OURS):
        buffer = torch.ones(5)
        opt = kind([Parameter(buffer[:3]), Parameter(buffer[2:])], lr=0.25, weight_decay=0.0)
        if kind is TORCH:
            step(opt)
            assert buffer.tolist() == pytest.approx([0.75, 0.75, 0.5, 0.75, 0.75])
        else:
            with pytest.raises(ValueError, match="share memory"):
                step(opt)
            assert buffer.tolist() == [1.0] * 5


def test_a_step_that_raises_has_changed_nothing():
    """A step that raises has changed nothing and can be repeated, because everything is checked
    before anything is written. torch has by then updated the parameters before the one that it
    fails at."""
    for kind, moved in ((TORCH, True), (OURS, False)):
        opt = stepped(kind, [ones(3), ones(4)])
        first = parameter(opt).detach().clone()
        parameter(opt, 1).data = torch.ones(2)  # no longer the shape of its gradient
        with pytest.raises((RuntimeError, ValueError)):
            opt.step()
        assert torch.equal(parameter(opt), first) is not moved
        assert state(opt)["step"] == (2 if moved else 1)
