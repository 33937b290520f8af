"""torch.amp.GradScaler in every order that its documentation shows."""

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_run,
    give_gradients,
    make_parameters,
    parameters_of,
    twin,
    warmup,
)
from lib.optimizers import those
from torch.amp import GradScaler


def scaler_of(**options):
    """A scaler that moves often enough to be seen."""
    return GradScaler("cpu", **{"init_scale": 256.0, "growth_interval": 3, **options})


def backward(rng, scaler, *optimizers, bad=False):
    """Scaled gradients, the same for all optimizers; with ``bad`` an infinity among them."""
    give_gradients(rng, *optimizers)
    factor = scaler.scale(torch.ones(()))
    for opt in optimizers:
        params = parameters_of(opt)
        for p in params:
            p.grad *= factor
        if bad:
            params[-1].grad.view(-1)[-1] = float("inf")


def pair(rng, kind, backend, fused=None, **options):
    """Ours and torch's; AdamW's fused one supports GradScaler in the same way."""
    fused = kind.fused if fused is None else fused
    params = make_parameters(rng)
    theirs = kind.theirs(twin(params), lr=0.02, **fused)
    return kind.ours(params, lr=0.02, backend=backend, **options), theirs


def unscaled_first(scaler, opt):
    scaler.unscale_(opt)
    torch.nn.utils.clip_grad_norm_(parameters_of(opt), 1.0)


ORDERS = {"not unscaled": lambda scaler, opt: None, "unscaled and clipped first": unscaled_first}


@pytest.mark.parametrize("amp_scaling", [True, False])
@pytest.mark.parametrize("prepare", ORDERS.values(), ids=ORDERS)
def test_grad_scaler_steps_as_with_torchs(rng, kind, backend, amp_scaling, prepare):
    """scale, backward, (unscale_, clip,) step, update: parameters, counts and the sequence of
    scales are those with torch's AdamW, with infinities at some steps."""
    ours, theirs = pair(rng, kind, backend, amp_scaling=amp_scaling)
    a, b = scaler_of(), scaler_of()
    b.scale(torch.ones(()))  # a scaler makes its scale when it is first asked
    for step in range(20):
        backward(rng, a, ours, theirs, bad=step in (0, 4, 5, 11))
        for scaler, opt in ((a, ours), (b, theirs)):
            prepare(scaler, opt)
            scaler.step(opt)
            scaler.update()
        assert a.get_scale() == b.get_scale()
    assert_near(ours, theirs)
    assert ours.metrics()["steps"] == 16


def test_a_skipped_step_does_not_move_the_schedule(rng, kind, backend):
    """The scaler's skip: no counter, no schedule, no moment moves; a later step goes on."""
    lr = warmup()
    params = make_parameters(rng)
    opt = kind.ours(params, lr=lr, backend=backend)
    scaler = scaler_of()
    for n in range(3):
        backward(rng, scaler, opt)
        scaler.step(opt)
        scaler.update()
        before = [p.detach().clone() for p in parameters_of(opt)]
        backward(rng, scaler, opt, bad=True)
        scaler.step(opt)
        scaler.update()
        assert opt.param_groups[0]["lr"] == lr(n + 1)
        assert opt.metrics()["skipped_steps"] == n + 1
        for p, kept in zip(parameters_of(opt), before, strict=True):
            assert torch.equal(p, kept)
        kind.assert_counts(opt, [n + 1.0] * 4)


def test_unscaling_twice_is_refused_by_the_scaler(rng, kind):
    """unscale_ twice, or after step: the scaler's own error; the run can go on."""
    opt, _ = pair(rng, kind, "auto")
    scaler = scaler_of()
    backward(rng, scaler, opt)
    scaler.unscale_(opt)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(opt)
    scaler.step(opt)
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(opt)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(opt)
    scaler.update()
    assert opt.metrics()["steps"] == 1


def test_accumulated_gradients_step_as_with_torchs(rng, kind, backend):
    """Several scaled backward passes, then one step and update."""
    ours, theirs = pair(rng, kind, backend)
    scaler = scaler_of()
    for _ in range(4):
        ours.zero_grad()
        theirs.zero_grad()
        backward(rng, scaler, ours, theirs)
        kept = [[p.grad for p in parameters_of(o)] for o in (ours, theirs)]
        backward(rng, scaler, ours, theirs)
        for opt, gradients in zip((ours, theirs), kept, strict=True):
            for p, g in zip(parameters_of(opt), gradients, strict=True):
                p.grad = p.grad + g
            scaler.step(opt)
        scaler.update()
    assert_near(ours, theirs)


def test_one_scaler_serves_several_optimizers(rng, kind, backend):
    """One skips, the other steps; one update for both."""
    a, b, c = make_parameters(rng), make_parameters(rng), make_parameters(rng)
    first, second = kind.ours(a, backend=backend), kind.ours(b, backend=backend)
    torchs = torch.optim.SGD(c, lr=0.1)
    scaler = scaler_of()
    for bad in (False, True, False):
        backward(rng, scaler, first)
        backward(rng, scaler, second, bad=bad)
        backward(rng, scaler, torchs)
        scaler.unscale_(first)
        for opt in (first, second, torchs):
            scaler.step(opt)
        before = scaler.get_scale()
        scaler.update()
        assert scaler.get_scale() == (before / 2 if bad else before)
    assert (first.metrics()["steps"], second.metrics()["steps"]) == (3, 2)


def test_several_scalers_serve_several_optimizers(rng, kind):
    """Two scalers with two optimizers do not know of each other."""
    pairs = [(pair(rng, kind, "auto")[0], scaler_of(init_scale=2.0**k)) for k in (4, 9)]
    for _ in range(4):
        for opt, scaler in pairs:
            backward(rng, scaler, opt)
            scaler.step(opt)
            scaler.update()
    assert [scaler.get_scale() for _, scaler in pairs] == [2.0**5, 2.0**10]
    assert [opt.metrics()["steps"] for opt, _ in pairs] == [4, 4]


def test_a_disabled_scaler_is_transparent(rng, kind):
    """GradScaler(enabled=False): a plain step, its arguments and result passed on."""
    ours, theirs = pair(rng, kind, "auto")
    scaler = GradScaler("cpu", enabled=False)
    for _ in range(3):
        backward(rng, scaler, ours, theirs)
        assert scaler.step(ours, lambda: 7.0) == 7.0
        theirs.step()
        scaler.update()
    assert_near(ours, theirs)


@those(lambda kind: "fused" in kind.counterpart([torch.zeros(1)]).defaults)
def test_a_users_grad_scale_is_multiplied_with_the_scalers(rng, kind):
    """The scaler multiplies a grad_scale that stands on the optimizer by its own, and deletes it
    after the step."""
    ours, theirs = pair(rng, kind, "auto", fused={"fused": True})
    scaler = scaler_of()
    for _ in range(3):
        backward(rng, scaler, ours, theirs)
        for opt in (ours, theirs):
            opt.grad_scale = torch.tensor(0.5)
            scaler.step(opt)
            assert not hasattr(opt, "grad_scale") and not hasattr(opt, "found_inf")
        scaler.update()
    assert_near(ours, theirs)


def test_own_loss_scale_beside_a_scaler_divides_by_both(rng, kind):
    """loss_scale and an outside scaler together: the gradients are divided by both."""
    params = make_parameters(rng)
    plain = kind.ours(twin(params))
    opt = kind.ours(params, loss_scale=8.0)
    scaler = scaler_of()
    for _ in range(3):
        give_gradients(rng, opt, plain)
        factor = float(opt.scale(scaler.scale(torch.ones(()))))
        for p in parameters_of(opt):
            p.grad *= factor
        scaler.step(opt)
        scaler.update()
        plain.step()
    assert_same_run(opt, plain)
