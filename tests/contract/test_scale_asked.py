"""A dynamic loss scale that nobody asked for: the first step says so.

Gradients are divided by it. If no loss was multiplied by it, that is 65536 times too much.
"""

import copy
import pickle
import warnings

import pytest
import torch
from lib.contract import (
    assert_same_run,
    assert_unchanged,
    make_parameters,
    parameters_of,
    snapshot,
    twin,
    warmup,
)

import lrfused

POLICY = lrfused.LossScale(init=64.0, growth_interval=2)
dynamic = pytest.mark.parametrize("scale", ["dynamic", POLICY], ids=["name", "policy"])


def give(rng, opt, scale=1.0):
    """Gradients, without a call of scale()."""
    for p in parameters_of(opt):
        p.grad = scale * torch.randn(p.shape, generator=rng.torch)


def made(rng, kind, backend="auto", scale="dynamic", **options):
    opt = kind.ours(make_parameters(rng), loss_scale=scale, backend=backend, **options)
    give(rng, opt)
    return opt


def refuses(opt):
    return pytest.raises(RuntimeError, match="step: loss_scale is dynamic, gradients are divided")


@dynamic
def test_the_first_step_says_what_to_write(rng, kind, backend, scale):
    """RuntimeError with the scale and the two lines; again at the next try; nothing has changed.
    With the line that it says training goes on."""
    opt = made(rng, kind, backend, scale, lr=warmup())
    before = [p.detach().clone() for p in parameters_of(opt)]
    init = 65536.0 if scale == "dynamic" else 64.0
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"divided by {init}, and no loss") as error:
            opt.step()
    assert "optimizer.scale(loss).backward()" in str(error.value)
    assert "optimizer.metrics()['loss_scale']" in str(error.value)
    assert all(torch.equal(p, q) for p, q in zip(parameters_of(opt), before, strict=True))
    assert not opt.state and opt.param_groups[0]["lr"] == warmup()(0)
    opt.zero_grad()
    loss = sum(p.square().sum() for p in parameters_of(opt))
    exec("optimizer.scale(loss).backward()", {"optimizer": opt, "loss": loss})
    opt.step()
    assert opt.metrics()["steps"] == 1


ASKED = {
    "scale": lambda opt: opt.scale(torch.ones(())),
    "metrics": lambda opt: opt.metrics()["loss_scale"],
}


@dynamic
@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_whoever_asked_may_step(rng, kind, backend, ask, scale):
    """scale(), or the scale out of metrics(): once is enough, for all later steps."""
    opt = made(rng, kind, backend, scale)
    ask(opt)
    for step in range(3):
        opt.step()
        assert opt.metrics()["steps"] == step + 1
        give(rng, opt)


def test_other_calls_are_no_question(rng, kind):
    """state_dict(), a load, sync_mirrors(), repr(): the scale is not what they are asked for."""
    opt = made(rng, kind)
    opt.load_state_dict(opt.state_dict())
    opt.sync_mirrors()
    repr(opt)
    with refuses(opt):
        opt.step()


def test_constant_scales_and_outside_scalers_are_not_asked_for(rng, kind, backend):
    """loss_scale=1024.0 is known to who wrote it; without a loss scale there is nothing to ask."""
    for scale in (1024.0, None):
        opt = made(rng, kind, backend, scale)
        opt.step()
        assert opt.metrics()["steps"] == 1
    opt = made(rng, kind, backend, None)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(sum(p.sum() for p in parameters_of(opt))).backward()
    scaler.step(opt)
    assert opt.metrics()["steps"] == 1


@dynamic
def test_allocating_state_is_no_step(rng, kind, backend, scale):
    """What torch.distributed.checkpoint does to have state allocated (all gradients zero, every lr
    0, no state) is not refused; the step after it is, until somebody asks."""
    opt = made(rng, kind, backend, scale)
    plain = kind.ours(twin(parameters_of(opt)), loss_scale=scale, backend=backend)
    for p in parameters_of(opt):
        p.grad.zero_()
    lr, opt.param_groups[0]["lr"] = opt.param_groups[0]["lr"], 0.0
    opt.step()
    opt.param_groups[0]["lr"] = lr
    assert len(opt.state) == (len(parameters_of(opt)) if kind.has_state else 0)
    give(rng, opt)
    with refuses(opt):
        opt.step()
    for a, b in zip(parameters_of(plain), parameters_of(opt), strict=True):
        a.grad = b.grad.clone()
    for one in (opt, plain):
        one.scale(torch.ones(()))
        one.step()
    assert_same_run(opt, plain)
    assert opt.metrics() == plain.metrics()


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda opt: pickle.loads(pickle.dumps(opt))}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_a_copy_remembers_whether_it_was_asked(rng, kind, duplicate):
    """Before the first step; and one of an optimizer that has stepped goes on."""
    opt = made(rng, kind)
    other = duplicate(opt)
    give(rng, other)
    with refuses(other):
        other.step()
    opt.scale(torch.ones(()))
    for _ in range(2):
        other = duplicate(opt)
        give(rng, other)
        other.step()
        opt.step()
    assert other.metrics()["steps"] == 2


def test_a_resumed_run_is_asked_again(rng, kind):
    """A checkpoint brings the scale, not the code that multiplies by it."""
    first = made(rng, kind)
    first.scale(torch.ones(()))
    first.step()
    opt = made(rng, kind)
    opt.load_state_dict(first.state_dict())
    before = snapshot(first)["metrics"]
    with refuses(opt):
        opt.step()
    assert opt.metrics()["steps"] == before["steps"] == 1
    opt.step()
    assert opt.metrics()["steps"] == 2


def test_a_skipped_step_was_asked_for(rng, kind, backend):
    """The first steps overflow, as the first scale may be too large: they are skipped, not
    refused."""
    opt = made(rng, kind, backend)
    opt.scale(torch.ones(()))
    for _ in range(2):
        give(rng, opt, scale=torch.inf)
        opt.step()
    assert opt.metrics()["skipped_steps"] == 2
    other = made(rng, kind, backend)
    before = snapshot(copy.deepcopy(other))
    give(rng, other, scale=torch.inf)
    with refuses(other):
        other.step()
    assert_unchanged(other, before)


@pytest.mark.parametrize("asks", [True, False])
def test_a_compiled_step_asks_in_its_graph(rng, kind, asks):
    """torch.compile of scale, backward and step: no complaint, and the same bits as in eager;
    without scale() the first call raises."""
    params = make_parameters(rng, shapes=[(4,), (2, 3)])
    opts = [kind.ours(p, lr=warmup(), loss_scale=POLICY) for p in (params, twin(params))]

    def step(opt):
        loss = sum(p.square().sum() for p in opt.param_groups[0]["params"])
        (opt.scale(loss) if asks else loss).backward()
        opt.step()
        opt.zero_grad()

    torch._dynamo.reset()
    compiled = torch.compile(lambda: step(opts[0]), backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler
        for _ in range(4 if asks else 0):
            compiled()
            step(opts[1])
        if not asks:
            with refuses(opts[0]):
                compiled()
    torch._dynamo.reset()
    assert_same_run(*opts)
    assert opts[0].metrics() == opts[1].metrics()
    assert opts[0].metrics()["loss_scale"] == (256.0 if asks else 64.0)
