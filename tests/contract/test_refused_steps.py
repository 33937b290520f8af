"""Steps that cannot be: an error that names what is wrong, and everything as it was before."""

import math

import pytest
import torch
from lib.contract import (
    assert_same_bits,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    snapshot,
    twin,
)
from lib.optimizers import CLASSES, that_counts

from lrfused import schedules
from lrfused.memory import dtensor


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 2.0**53, 1e30])
@that_counts
def test_a_step_count_that_is_no_count_is_refused(rng, kind, backend, value):
    """state["step"].fill_(nan): the error names the parameter and the value; nothing moves."""
    opt = kind.ours(make_parameters(rng), **kind.carrying, backend=backend)
    run(rng, 2, opt)
    shown = opt.state[parameters_of(opt)[1]]["step"]
    first = kind.moments[0]
    moving = [*parameters_of(opt), *(state[first] for state in opt.state.values())]
    before = [tensor.detach().clone() for tensor in moving]
    shown.fill_(value)
    give_gradients(rng, opt)
    with pytest.raises(RuntimeError, match=r"step 2: state\['step'\] of parameter 1 is .*count"):
        opt.step()
    with pytest.raises(ValueError, match=r"state\['step'\].*count"):
        opt.state_dict()
    assert_same_bits(moving, before)
    shown.fill_(2.0)
    opt.step()
    assert [float(state["step"]) for state in opt.state.values()] == [3.0] * len(opt.state)


@that_counts
def test_a_replaced_step_count_that_is_no_count_is_refused(rng, kind, backend):
    """state["step"] = tensor(nan): refused before anything is built."""
    opt = kind.ours(make_parameters(rng), backend=backend)
    run(rng, 2, opt)
    first = parameters_of(opt)[0]
    kept, opt.state[first]["step"] = opt.state[first]["step"], torch.tensor(math.nan)
    before = [p.detach().clone() for p in parameters_of(opt)]
    give_gradients(rng, opt)
    with pytest.raises(ValueError, match=r"state\['step'\]: must be a count.*got nan"):
        opt.step()
    assert_same_bits(parameters_of(opt), before)
    opt.state[first]["step"] = kept
    opt.step()
    assert float(opt.state[first]["step"]) == 3.0


def test_one_gradient_for_two_parameters_cannot_be_written(rng, kind, backend):
    """write_grads would scale it twice: refused; without write_grads it is only read."""
    values = torch.randn(6, generator=rng.torch)
    for writes in (False, True):
        params = make_parameters(rng, shapes=[(6,), (6,)])
        before = twin(params)
        opt = kind.ours(params, write_grads=writes, max_grad_norm=1.0, backend=backend)
        params[0].grad = params[1].grad = values.clone()
        if not writes:
            opt.step()
            continue
        with pytest.raises(ValueError, match=r"gradients \(write_grads=True.*\): two share"):
            opt.step()
        assert_same_bits(params, before)
        assert torch.equal(params[0].grad, values)


def test_a_refused_first_step_leaves_no_state(rng, kind, backend):
    """A gradient that is not finite with nonfinite="raise": no moments, no counts."""
    opt = kind.ours(make_parameters(rng), nonfinite="raise", backend=backend)
    before = snapshot(opt)
    give_gradients(rng, opt, scale=math.inf)
    with pytest.raises(RuntimeError, match="step 0: a gradient is not finite"):
        opt.step()
    assert not opt.state and str(snapshot(opt)) == str(before)
    give_gradients(rng, opt)
    opt.step()
    assert opt.metrics()["steps"] == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.name}-{name}")
        for kind in CLASSES
        for name in kind.hyperparameters
        if name not in ("betas", "dampening")  # a pair, and what may be negative
    ],
)
@pytest.mark.parametrize("value", [math.nan, -1.0])
def test_a_schedule_that_starts_with_no_usable_value_is_named(rng, kind, name, value):
    """At construction: the argument, the value at step 0 and the rule."""
    schedule = schedules.input(torch.tensor(value), "knob")
    with pytest.raises(ValueError, match=rf"{name}: the schedule is {value} at step 0.*must"):
        kind.ours(make_parameters(rng), **{name: schedule})
    opt = kind.ours(make_parameters(rng))
    with pytest.raises(ValueError, match=rf"{name}: the schedule is {value} at step 0.*must"):
        opt.add_param_group({"params": make_parameters(rng), name: schedule})
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize(
    "option", [{"max_grad_norm": 1.0}, {"loss_scale": "dynamic"}, {"agc": 1.0}]
)
def test_a_parameter_spread_over_ranks_needs_their_gradients(
    rng, kind, backend, option, monkeypatch
):
    """What depends on all gradients is refused for it, since this rank has only a part."""

    class Mesh:
        def size(self):
            return 2

    class DTensor(torch.Tensor):
        __module__ = "torch.distributed.tensor"
        device_mesh, placements = Mesh(), ("Shard(0)",)

        @property
        def _local_tensor(self):
            return self.detach().as_subclass(torch.Tensor)

    param = make_parameters(rng, shapes=[(4,)])[0].detach().as_subclass(DTensor)
    assert dtensor.is_distributed(param)
    param.grad = torch.ones(4).as_subclass(DTensor)
    message = r"spread over 2 ranks; max_grad_norm, agc, loss_scale"
    with pytest.raises(ValueError, match=message):
        kind.ours([param], backend=backend, **option)
    opt = kind.ours([param.detach()._local_tensor], backend=backend, **option)
    opt.param_groups[0]["params"] = [param]  # as accelerate does it, after construction
    opt.scale(torch.zeros(()))
    with pytest.raises(ValueError, match=message):
        opt.step()
    assert not opt.state[param]


def test_a_default_device_changes_nothing(rng, kind, backend):
    """torch.set_default_device is about tensors that the caller makes, not about the step's."""
    params = make_parameters(rng)
    options = {"max_grad_norm": 0.1, "clip_value": 0.1, "agc": 0.1, "loss_scale": "dynamic"}
    ours, plain = (
        kind.ours(twin(params), lr=schedules.warmup_cosine(0.1, 2, 9), backend=backend, **options)
        for _ in range(2)
    )
    for _ in range(3):
        give_gradients(rng, ours, plain)
        plain.step()
        torch.set_default_device("meta")
        try:
            ours.step()
            ours.load_state_dict(ours.state_dict())
        finally:
            torch.set_default_device(None)
    assert_same_bits(parameters_of(ours), parameters_of(plain))
    assert ours.metrics() == plain.metrics()


def test_metrics_before_the_first_step_show_the_first_lr(rng, kind, backend):
    """lr is what the first step will use."""
    lr = schedules.linear(0.5, 0.1, 4)
    opt = kind.ours(make_parameters(rng), lr=lr, backend=backend)
    assert opt.metrics()["lr"] == [0.5] and opt.metrics()["steps"] == 0
    run(rng, 2, opt)
    assert opt.metrics()["lr"] == [lr(1)]
