"""What training frameworks do to an optimizer: wrap, hook, reassign, average, profile."""

import copy
import functools
import inspect

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_bits,
    assert_same_run,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    twin,
    warmup,
)
from torch.optim import swa_utils


def test_step_is_a_real_bound_method(rng, kind):
    """step(self, closure=None) is a bound method with torch's signature."""
    opt = kind.ours(make_parameters(rng))
    assert inspect.ismethod(opt.step) and opt.step.__self__ is opt
    assert list(inspect.signature(opt.step).parameters) == ["closure"]
    assert inspect.signature(opt.step).parameters["closure"].default is None


def test_step_can_be_reassigned(rng, kind):
    """accelerate assigns optimizer.step; the new one is called, by GradScaler too."""
    opt = kind.ours(make_parameters(rng))
    original, calls = opt.step, []

    def patched(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    opt.step = patched
    run(rng, 2, opt)
    opt.step = functools.partial(original, closure=None)
    run(rng, 1, opt)
    opt.step = original
    run(rng, 1, opt)
    assert len(calls) == 2 and opt.metrics()["steps"] == 4


def test_a_closure_is_evaluated_once_with_gradients_on(rng, kind, backend):
    """step(closure) evaluates it once, with gradients enabled, and returns its loss."""
    (p,) = make_parameters(rng, shapes=((5,),))
    (q,) = twin([p])
    ours = kind.ours([p], lr=0.1, backend=backend)
    theirs = kind.theirs([q], lr=0.1)
    calls = []

    def closure(opt, param):
        calls.append(opt)
        opt.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        for _ in range(5):
            losses = [
                opt.step(functools.partial(closure, opt, x)) for opt, x in ((ours, p), (theirs, q))
            ]
            torch.testing.assert_close(losses[0], losses[1])
            assert losses[0].requires_grad
        assert not torch.is_grad_enabled()
    assert len(calls) == 10
    assert_near(ours, theirs)


def test_a_closure_that_raises_changes_nothing(rng, kind):
    """The closure's exception comes through; parameters, state and counters stay."""
    opt = kind.ours(make_parameters(rng), lr=warmup())
    run(rng, 2, opt)
    kept = twin(parameters_of(opt))
    with pytest.raises(ZeroDivisionError):
        opt.step(lambda: 1 / 0)
    assert_same_bits(parameters_of(opt), kept)
    assert opt.metrics()["steps"] == 2


def test_step_hooks_are_called_as_by_torch(rng, kind):
    """register_step_pre_hook and _post_hook, of the instance and global: called as by torch."""
    from torch.optim.optimizer import (
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )

    opt = kind.ours(make_parameters(rng))
    calls = []
    handles = [
        register_optimizer_step_pre_hook(lambda o, a, k: calls.append("all before")),
        register_optimizer_step_post_hook(lambda o, a, k: calls.append("all after")),
        opt.register_step_pre_hook(lambda o, a, k: calls.append("before")),
        opt.register_step_post_hook(lambda o, a, k: calls.append("after")),
        opt.register_step_pre_hook(lambda o, a, k: (a, {"closure": lambda: 5.0})),
    ]
    try:
        give_gradients(rng, opt)
        assert opt.step() == 5.0
    finally:
        for handle in handles:
            handle.remove()
    assert sorted(calls[:2]) == ["all before", "before"]
    assert sorted(calls[2:]) == ["after", "all after"]
    run(rng, 1, opt)
    assert len(calls) == 4


def test_a_hook_may_change_gradients_and_groups(rng, kind):
    """What a pre-hook writes to gradients and groups counts in that step."""
    params = make_parameters(rng)
    opt, plain = kind.ours(params), kind.ours(twin(params), lr=0.5)

    def hook(o, args, kwargs):
        o.param_groups[0]["lr"] = 0.5
        for p in parameters_of(o):
            p.grad = p.grad * 2.0

    opt.register_step_pre_hook(hook)
    for _ in range(2):
        give_gradients(rng, opt, plain)
        for p in parameters_of(plain):
            p.grad *= 2.0
        opt.step()
        plain.step()
    assert_same_run(opt, plain)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_works_both_ways(rng, kind, backend, set_to_none):
    """zero_grad(set_to_none=True and False): as in torch, zeros count as gradients."""
    params = make_parameters(rng)
    ours = kind.ours(params, lr=0.1, backend=backend)
    theirs = kind.theirs(twin(params), lr=0.1)
    for _ in range(3):
        run(rng, 1, ours, theirs)
        for opt in (ours, theirs):
            opt.zero_grad(set_to_none=set_to_none)
            assert all((p.grad is None) == set_to_none for p in parameters_of(opt))
            opt.step()
    assert_near(ours, theirs)


def test_gradients_are_not_written(rng, kind):
    """.grad is never written, clipped or not, unless write_grads=True."""
    params = make_parameters(rng)
    options = {"max_grad_norm": 0.1, "clip_value": 0.5, "loss_scale": 4.0, "maximize": True}
    opt = kind.ours(params, **options)
    give_gradients(rng, opt)
    kept = [p.grad.clone() for p in params]
    held = [p.grad for p in params]
    opt.step()
    assert_same_bits((p.grad for p in params), kept)
    assert all(p.grad is g for p, g in zip(params, held, strict=True))


def test_the_profiler_sees_the_step(rng, kind):
    """torch.profiler shows Optimizer.step#AdamW.step, Optimizer.zero_grad#AdamW.zero_grad."""
    name = kind.cls.__name__
    opt = kind.ours(make_parameters(rng))
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, acc_events=True) as profile:
        run(rng, 2, opt)
        opt.zero_grad()
    names = {event.key for event in profile.key_averages()}
    assert {f"Optimizer.step#{name}.step", f"Optimizer.zero_grad#{name}.zero_grad"} <= names


def test_a_subclass_may_override_step(rng, kind):
    """A derived class that calls super().step(closure)."""

    class Mine(kind.cls):
        def step(self, closure=None):
            self.called = True
            return super().step(closure)

    params = make_parameters(rng)
    opt = Mine(params, **kind.options, lr=warmup())
    plain = kind.ours(twin(params), lr=warmup())
    run(rng, 3, opt, plain)
    assert opt.called
    assert_same_run(opt, plain)


def test_steps_in_the_backward_pass_equal_one_step_after_it(rng, kind):
    """register_post_accumulate_grad_hook with one optimizer per parameter, as torch's tutorial."""
    params = make_parameters(rng)
    plain = kind.ours(twin(params))
    each = {p: kind.ours([p]) for p in params}

    def hook(p):
        each[p].step()
        each[p].zero_grad()

    for p in params:
        p.register_post_accumulate_grad_hook(hook)
    for _ in range(3):
        factors = [torch.randn(p.shape, generator=rng.torch) for p in params]
        for group in (params, parameters_of(plain)):
            sum((p * f).sum() for p, f in zip(group, factors, strict=True)).backward()
        plain.step()
        plain.zero_grad()
    assert_same_bits(params, parameters_of(plain))


@pytest.mark.parametrize("average", ["swa", "ema"])
def test_averaged_models_and_swalr_run(rng, kind, average):
    """torch.optim.swa_utils: AveragedModel (SWA and EMA), SWALR and update_bn, as with torch's."""
    torch.manual_seed(int(rng.numpy.integers(2**31)))
    model = torch.nn.Sequential(torch.nn.Linear(4, 6, bias=False), torch.nn.BatchNorm1d(6))
    # In float64, as the normalization makes much of a last bit.
    other = copy.deepcopy(model.double())
    data = torch.randn(10, 8, 4, generator=rng.torch, dtype=torch.float64)
    results = []
    for net, cls in ((model, kind.cls), (other, kind.counterpart)):
        opt = cls(net.parameters(), lr=0.05)
        mean = swa_utils.get_ema_multi_avg_fn(0.9) if average == "ema" else None
        averaged = swa_utils.AveragedModel(net, multi_avg_fn=mean)
        scheduler = swa_utils.SWALR(opt, swa_lr=0.01, anneal_epochs=5)
        for x in data:
            opt.zero_grad()
            # Weighted, and no bias before: their gradients would be nothing but rounding.
            (net(x) * torch.arange(48.0).reshape(8, 6)).square().mean().backward()
            opt.step()
            averaged.update_parameters(net)
            scheduler.step()
        swa_utils.update_bn(data, averaged)
        results.append([v.clone() for v in averaged.state_dict().values()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_autograd_notices_the_step(rng, kind, backend):
    """A backward through parameters that a step has changed since is refused, as with torch."""
    weight = torch.nn.Parameter(torch.randn(5, generator=rng.torch))
    opt = kind.ours([weight], backend=backend)
    loss = weight.square().sum()
    loss.backward(retain_graph=True)
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
