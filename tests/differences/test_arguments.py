"""Construction and arguments."""

import pytest
import torch
from torch.optim.adamw import adamw

import lrfused.optim.adamw
from lrfused import schedules

from .both import OURS, TORCH, ones, parameter, step, stepped


def test_schedules_are_arguments():
    """`lr`, `betas`, `eps` and `weight_decay` may be Schedules, evaluated inside the step at the
    number of completed steps. torch takes numbers, and a scheduler outside of the optimizer writes
    other ones."""
    lr = schedules.linear(0.0, 0.5, 2)
    with pytest.raises(TypeError):
        TORCH([ones()], lr=lr)
    opt = OURS([ones()], lr=lr)
    shown = []
    for _ in range(3):
        shown.append(opt.param_groups[0]["lr"])
        step(opt)
    assert shown == [0.0, 0.25, 0.5]


OWN = {
    "max_grad_norm": 1.0,
    "norm_type": 2.0,
    "clip_value": 1.0,
    "agc": 0.01,
    "agc_by": "unit",
    "nonfinite": "skip",
    "accumulation_steps": 2,
    "loss_scale": "dynamic",
    "advance_schedule_on_skip": True,
    "weight_decay_mode": "independent",
    "peak_lr": 1.0,
    "bias_correction": "product",
    "start_step": 1,
    "write_grads": True,
    "always_measure": True,
    "amp_scaling": False,
    "backend": "reference",
}


def test_it_has_arguments_of_its_own():
    """What torch does around the step is an argument here: clipping, loss scaling, what inf and nan
    do, averaging over micro-batches, other kinds of decay and bias correction. They are
    keyword-only and come after torch's, which refuses them as unknown."""
    for name, value in OWN.items():
        with pytest.raises(TypeError, match=name):
            TORCH([ones()], **{name: value})
        OURS([ones()], **{name: value})


def test_differentiable_is_refused():
    """`differentiable=True` is refused, because autograd cannot go through the fused step. torch
    allows it.

    `torch.optim.AdamW`, where gradients have to flow through the step itself."""
    TORCH([ones()], differentiable=True)
    with pytest.raises(ValueError, match="differentiable: must be False"):
        OURS([ones()], differentiable=True)


def test_foreach_fused_and_capturable_choose_nothing():
    """`foreach`, `fused` and `capturable` are accepted and ignored: the step is always fused, and a
    CUDA graph may capture it without being asked for. torch refuses `fused` together with
    `foreach`, and a capturable step on a CPU.

    `backend=` chooses the implementation; `lrfused.info()` lists those that there are."""
    with pytest.raises(RuntimeError, match="fused"):
        TORCH([ones()], fused=True, foreach=True)
    with pytest.raises(AssertionError, match="capturable"):
        stepped(TORCH, capturable=True)
    plain = parameter(stepped(OURS))
    for options in ({"fused": True, "foreach": True}, {"capturable": True}, {"foreach": False}):
        assert torch.equal(parameter(stepped(OURS, **options)), plain)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", float("inf")),
        ("eps", float("inf")),
        ("weight_decay", float("inf")),
        ("lr", True),
        ("amsgrad", 1),
        ("maximize", "no"),
    ],
)
def test_arguments_are_checked_more_closely(name, value):
    """Infinite hyperparameters, `True` in place of a number, and anything but `True` or `False` for
    a flag are refused, because each is a mistake that would show late. torch accepts them."""
    assert TORCH([ones()], **{name: value}).param_groups[0][name] == value
    with pytest.raises((TypeError, ValueError), match=f"{name}: must be"):
        OURS([ones()], **{name: value})


def test_betas_may_be_of_different_kinds():
    """Each of the two betas may be an integer, a float, a Tensor or a Schedule, whatever the other
    one is, because each is a hyperparameter of its own. torch wants two floats or two Tensors."""
    for betas in ((0, 0.5), (torch.tensor(0.0), 0.5)):
        with pytest.raises(ValueError, match="both"):
            TORCH([ones()], betas=betas)
        assert OURS([ones()], betas=betas).param_groups[0]["betas"] == (0.0, 0.5)
    assert OURS([ones()], betas=(schedules.constant(0.0), 0.5)).param_groups[0]["betas"] == (0, 0.5)


def test_tensors_other_than_lr_are_shown_as_numbers():
    """`weight_decay`, `eps` and `betas` that are given as Tensors are read at every step, but the
    group shows them as floats, so that loggers and checkpoints find numbers there. torch keeps the
    Tensor in the group.

    To change the value, write to the Tensor that you gave."""
    decay = torch.tensor(0.0)
    ours, theirs = (kind([ones()], lr=0.5, weight_decay=decay) for kind in (OURS, TORCH))
    assert theirs.param_groups[0]["weight_decay"] is decay
    assert type(ours.param_groups[0]["weight_decay"]) is float
    decay.fill_(1.0)
    for opt in (ours, theirs):
        step(opt, 0.0)
        assert parameter(opt).tolist() == [0.5] * 3


def test_torchs_inner_functions_are_not_called():
    """There is no functional form like `torch.optim.adamw.adamw`, and the step does not call
    `_init_group`, because it is one call without inner stages. torch's step goes through both.

    In a derived class override `step`, or register hooks."""
    for kind, expected in ((TORCH, 1), (OURS, 0)):
        calls = []

        class Derived(kind):
            def _init_group(self, *args, calls=calls):
                calls.append(args)
                return super()._init_group(*args)

        stepped(Derived)
        assert len(calls) == expected
    assert callable(adamw) and not hasattr(lrfused.optim.adamw, "adamw")


def test_hooks_see_the_closure_as_a_keyword():
    """After `step(closure)` a step hook finds the closure in its `kwargs`, because the step passes
    it on by name. torch leaves it where the caller put it, in `args`.

    A hook that needs the closure should look in both."""
    for kind, expected in ((TORCH, [(1, 0), (0, 1)]), (OURS, [(0, 1), (0, 1)])):
        opt, seen = kind([ones()]), []
        opt.register_step_pre_hook(lambda _, a, k, seen=seen: seen.append((len(a) - 1, len(k))))
        opt.step(lambda: 1.0)
        opt.step(closure=lambda: 1.0)
        assert seen == expected
