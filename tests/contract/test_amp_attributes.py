"""grad_scale and found_inf, the attributes through which torch's GradScaler speaks."""

import copy

import pytest
import torch
from lib.contract import (
    assert_same_bits,
    assert_same_run,
    assert_unchanged,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    snapshot,
    tensors_of,
    twin,
    warmup,
)


@pytest.mark.parametrize(
    "grad_scale", [4.0, torch.tensor(4.0), torch.tensor([4.0], dtype=torch.float64), 4]
)
def test_a_users_grad_scale_divides_the_gradients(rng, kind, backend, grad_scale):
    """grad_scale set by hand, as number or tensor: the gradients are divided by it."""
    params = make_parameters(rng)
    plain = kind.ours(twin(params), backend=backend)
    opt = kind.ours(params, backend=backend)
    opt.grad_scale = grad_scale
    for _ in range(3):
        give_gradients(rng, opt, plain)
        for p in parameters_of(opt):
            p.grad *= 4.0
        opt.step()
        plain.step()
    assert_same_run(opt, plain)


@pytest.mark.parametrize(
    "number", [int, float, bool, torch.tensor, lambda x: torch.tensor([x] * 1)]
)
@pytest.mark.parametrize("value", [0, 1, 2])
@pytest.mark.parametrize("scale", [None, 2.0])
def test_found_inf_other_than_zero_skips(rng, kind, backend, number, value, scale):
    """found_inf != 0 means skip, as int, float, bool or tensor, also with grad_scale None."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), backend=backend)
    run(rng, 1, opt)
    before = snapshot(opt)
    opt.grad_scale, opt.found_inf = scale, number(value)
    run(rng, 1, opt)
    if value:
        assert opt.metrics()["skipped_steps"] == 1
        before["metrics"]["skipped_steps"] = 1
        for group in before["groups"]:
            group |= {"lrfused_skipped_steps": 1.0, "lrfused_consecutive_skips": 1.0}
        assert_unchanged(opt, before)
    else:
        assert opt.metrics()["steps"] == 2


def test_found_inf_none_is_an_ordinary_step(rng, kind):
    """found_inf None or absent: a step."""
    opt = kind.ours(make_parameters(rng))
    opt.found_inf = None
    run(rng, 2, opt)
    assert opt.metrics()["steps"] == 2


def test_amp_scaling_can_be_switched_off(rng, kind):
    """_step_supports_amp_scaling is True, False with amp_scaling=False; copies keep it."""
    assert kind.ours(make_parameters(rng))._step_supports_amp_scaling is True
    off = kind.ours(make_parameters(rng), amp_scaling=False)
    assert off._step_supports_amp_scaling is False
    assert copy.deepcopy(off)._step_supports_amp_scaling is False


@pytest.mark.parametrize("nonfinite", ["propagate", "skip", "raise"])
@pytest.mark.parametrize("scaling", ["loss_scale", "found_inf"])
def test_a_loss_scale_or_found_inf_implies_skip(rng, kind, backend, nonfinite, scaling):
    """With a loss scale, or found_inf set, a gradient that is not finite skips the step, whatever
    nonfinite says."""
    options = {"loss_scale": 4.0} if scaling == "loss_scale" else {}
    opt = kind.ours(make_parameters(rng), backend=backend, nonfinite=nonfinite, **options)
    run(rng, 2, opt)
    kept = tensors_of(opt)
    give_gradients(rng, opt)
    parameters_of(opt)[1].grad[3] = rng.numpy.choice([float("inf"), float("nan")])
    opt.found_inf = 1.0 if scaling == "found_inf" else None
    opt.step()
    assert opt.metrics()["skipped_steps"] == 1 and opt.metrics()["steps"] == 2
    assert_same_bits(tensors_of(opt), kept)
