"""Nothing of a step waits for the device."""

import pytest
import torch
from lib.late_device import WAITING, NothingWaits
from lib.layouts import LAYOUTS
from lib.runs import FEW, random_problem, set_gradients, start

from lrfused import native
from lrfused import schedules as S

X = torch.tensor(0.5, dtype=torch.float64)
LR = S.warmup_cosine(1e-2, 3, 20)
OPTIONS = {
    "default": {},
    "scheduled": {"lr": LR},  # and what the rule has
    "input": {"lr": LR * S.input(X, "x"), "max_grad_norm": S.input(X, "y")},
    "tensor": {"lr": torch.tensor(0.01)},
    "clips": {"max_grad_norm": 0.1, "clip_value": 0.3, "agc": 0.1},
    "loss scale": {"loss_scale": "dynamic", "always_measure": True},
    "raise": {"nonfinite": "raise"},
    "write": {"write_grads": True},
}


@pytest.mark.parametrize(
    "ask",
    [
        float,
        int,
        bool,
        lambda x: x.item(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: [1, 2, 3][x],
        lambda x: torch.equal(x, x),
        lambda x: x.nonzero(),
        lambda x: torch.is_nonzero(x),
        lambda x: 1 if x == 1 else 2,
    ],
)
def test_the_mode_sees_what_waits(ask):
    x = torch.tensor(1)
    ask(x)
    with NothingWaits(), pytest.raises(AssertionError, match="waits for the device"):
        ask(x)


def steady_steps(rng, queue, made, change=lambda gradients: gradients, outside=None):
    """Some steps to begin with, then some in which nothing may wait."""
    problem = random_problem(rng, FEW, 8)
    problem.values = [p.detach() for p in made.params]
    for step, gradients in enumerate(problem.gradients):
        set_gradients(made.params, [None if g is None else change(g) for g in gradients])
        vars(made.opt).update(outside or {})
        if step < 2:
            made.opt.step()
            continue
        with NothingWaits(queue):
            made.opt.step()
            made.opt.scale(torch.ones(()))
        if step % 2:
            queue.run()
    return made


@pytest.mark.parametrize("reader", [*native.tensor_readers, "none"])
@pytest.mark.parametrize("name", OPTIONS)
def test_no_steady_step_waits(rng, queue, rule, monkeypatch, name, reader):
    names = [known for known in native.tensor_readers if known == reader]
    monkeypatch.setattr(native, "tensor_readers", names)
    values = random_problem(rng, FEW, 1).values
    own = {"scheduled": rule.scheduled, "clips": rule.largest}.get(name, {})
    made = start(values, groups=({}, {"weight_decay": 1e-6}), **OPTIONS[name], **own)
    steady_steps(rng, queue, made)
    assert queue.done > 2  # and something was learnt
    assert made.opt.metrics()["steps"] == 8


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_copied_gradient_waits(rng, queue, rule, layout):
    made = start([torch.zeros(4, 6, 3, 5)], max_grad_norm=1.0)
    for step in range(5):
        made.params[0].grad = LAYOUTS[layout](torch.randn(4, 6, 3, 5, generator=rng.torch))
        if step < 2:
            made.opt.step()
        else:
            with NothingWaits():
                made.opt.step()


@pytest.mark.parametrize("scale", [None, torch.tensor(2.0), torch.tensor([2.0])])
@pytest.mark.parametrize("found", [torch.tensor(0.0), torch.tensor([1.0]), 0])
def test_a_grad_scalers_tensors_are_not_read(rng, queue, rule, scale, found):
    made = start(random_problem(rng, FEW, 1).values)
    steady_steps(rng, queue, made, outside={"grad_scale": scale, "found_inf": found})
    assert made.opt.metrics()["skipped_steps"] == 8 * int(found)


def test_a_first_step_of_zeros_is_looked_at_once(rng, queue):
    """A warmup from 0: torch.distributed.checkpoint might be asking for state."""
    made = start([torch.ones(5)], lr=S.linear(0.0, 1.0, 5))
    set_gradients(made.params, [torch.ones(5)])
    with NothingWaits(), pytest.raises(AssertionError, match="__bool__ waits"):
        made.opt.step()
    made.opt.step()
    with NothingWaits():
        made.opt.step()


def test_every_name_is_one_of_torch():
    names = {*dir(torch.Tensor), *dir(torch), *dir(torch.cuda.Event)}
    assert names >= WAITING
