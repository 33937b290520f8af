"""Averages of the weights: torch.optim.swa_utils within a bound, closed forms, who is averaged."""

import math

import numpy as np
import pytest
import torch
from lib.runs import (
    advance,
    assert_same_bits,
    numpy_of,
    parameters,
    random_problem,
    set_gradients,
    start,
)
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

import lrfused
from lrfused import schedules as S

KEY = "lrfused_average"


def average_of(run, i=0):
    return run.opt.state[run.params[i]][KEY]


def still(values, backend, **options):
    """A run whose weights do not move, with a gradient for each."""
    made = start(values, backend, lr=0.0, weight_decay=0.0, **options)
    set_gradients(made.params, [torch.ones_like(value) for value in values])
    return made


def ulps(got, want, a, p, dtype):
    """The largest distance in units of the last place of max(|a|, |p|)."""
    largest = np.maximum(np.abs(numpy_of(a)), np.abs(numpy_of(p))).astype(dtype)
    return float((np.abs(numpy_of(got) - numpy_of(want)) / np.spacing(largest)).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_update_is_within_an_ulp_of_both_forms_of_torchs(backend, rng, dtype):
    numpy_type = np.float64 if dtype == torch.float64 else np.float32
    for decay in (0.999, 0.9, 0.5, 0.3, 0.0, float(rng.numpy.random())):
        scale = 10.0 ** torch.randn(1000, generator=rng.torch, dtype=torch.float64)
        p, before = (
            torch.randn(1000, generator=rng.torch, dtype=torch.float64) * scale for _ in "pa"
        )
        p, before = p.to(dtype), before.to(dtype)
        made = still([p], backend, ema_decay=decay)
        made.opt.step()
        assert_same_bits(average_of(made), p)
        average_of(made).copy_(before)
        made.opt.step()
        one = get_ema_avg_fn(decay)(before, p, 1)
        many = [before.clone()]
        get_ema_multi_avg_fn(decay)(many, [p], 1)
        assert ulps(average_of(made), many[0], before, p, numpy_type) <= 1.0
        assert ulps(average_of(made), one, before, p, numpy_type) <= 2.0  # torch's differ by one


def test_many_updates_stay_near_torchs_model(backend, rng):
    """Within 1 / (1 - decay) ulps of the largest weight or average so far."""
    steps, decay = 40, 0.9
    problem = random_problem(rng, [(65,), (5, 13)], steps, none=0.0)
    made = start(problem.values, backend, ema_decay=decay)
    model = torch.nn.Module()
    model.params = torch.nn.ParameterList(made.params)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    largest = 0.0
    for gradients in problem.gradients:
        advance(made, gradients)
        theirs.update_parameters(model)
        largest = max([largest, *(float(p.detach().abs().max()) for p in made.params)])
    for i, other in enumerate(theirs.module.params):
        distance = (average_of(made, i) - other.detach()).abs().max()
        assert float(distance) <= np.spacing(np.float32(largest)) / (1 - decay)


def test_the_closed_form(backend, rng):
    """d^(n-1) p_1 + (1 - d) sum d^(n-k) p_k, in float64."""
    decay, seen = 0.7, []
    problem = random_problem(rng, [(33,)], 12, (torch.float64,))
    made = start(problem.values, backend, ema_decay=decay)
    for gradients in problem.gradients:
        advance(made, gradients)
        seen.append(made.params[0].detach().clone())
    n = len(seen)
    want = decay ** (n - 1) * seen[0]
    want = want + sum((1 - decay) * decay ** (n - k) * seen[k - 1] for k in range(2, n + 1))
    torch.testing.assert_close(average_of(made), want, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_average_of_16_bit_weights_is_float32(backend, rng, dtype):
    """Of the weights as they are stored."""
    problem = random_problem(rng, [(70,)], 5, (dtype,))
    made = start(problem.values, backend, ema_decay=0.5)
    want = None
    for gradients in problem.gradients:
        advance(made, gradients)
        p = made.params[0].detach().float()
        want = p if want is None else p - (p - want) * 0.5
    assert average_of(made).dtype == torch.float32
    assert_same_bits(average_of(made), want)


def test_what_does_not_move_is_averaged_too(backend, rng):
    """Without a gradient, never with one, and before the group starts; not in skipped steps."""
    values = [torch.randn(9, generator=rng.torch) for _ in range(3)]
    made = start(
        values,
        backend,
        ema_decay=0.75,
        nonfinite="skip",
        groups=({}, {"start_step": 3}),
    )
    waiting, frozen = made.params[1:]
    frozen.requires_grad_(False)
    advance(made, [torch.ones(9), torch.ones(9), None])
    assert_same_bits(average_of(made, 1), values[1])
    assert_same_bits(average_of(made, 2), values[2])
    with torch.no_grad():  # somebody else moves them
        waiting.zero_()
        frozen.zero_()
    before = [average_of(made, i).clone() for i in range(3)]
    advance(made, [torch.full((9,), torch.inf), None, None])
    for i, average in enumerate(before):
        assert_same_bits(average_of(made, i), average)
    advance(made, [torch.ones(9), None, None])
    for i in (1, 2):
        assert_same_bits(average_of(made, i), before[i] + (0.0 - before[i]) * 0.25)
    assert_same_bits(waiting.detach(), torch.zeros(9))


def test_steps_without_any_gradient_change_nothing(backend, rng):
    made = start([torch.randn(5, generator=rng.torch)], backend, ema_decay=0.5)
    advance(made, [None])
    assert made.opt.metrics()["steps"] == 0
    advance(made, [torch.ones(5)])
    before = average_of(made).clone()
    advance(made, [None])
    assert_same_bits(average_of(made), before)


def test_update_every(backend, rng):
    """At steps 0, 3, 6: in between nothing changes."""
    problem = random_problem(rng, [(17,)], 8)
    made = start(problem.values, backend, ema_decay=0.5, ema_update_every=3)
    want = None
    for step, gradients in enumerate(problem.gradients):
        advance(made, gradients)
        p = made.params[0].detach().clone()
        if step == 0:
            want = p
        elif step % 3 == 0:
            want = p - (p - want) * 0.5
        assert_same_bits(average_of(made), want)


def test_a_scheduled_decay_by_group(backend, rng):
    """One group follows a schedule, one a tensor, one is not averaged."""
    problem = random_problem(rng, [(11,), (12,), (13,)], 4, (torch.float64,), none=0.0)
    tensor = torch.tensor(0.25)
    groups = ({"ema_decay": (S.step + 1) / 8}, {"ema_decay": tensor}, {})
    made = start(problem.values, backend, groups=groups)
    want = [None, None]
    for step, gradients in enumerate(problem.gradients):
        advance(made, gradients)
        for i, decay in enumerate(((step + 1) / 8, 0.25)):
            p, w = made.params[i].detach(), 1.0 - decay
            if want[i] is None:
                want[i] = p.clone()
            elif w < 0.5:
                want[i] = want[i] + (p - want[i]) * w
            else:
                want[i] = p - (p - want[i]) * (1 - w)
            assert_same_bits(average_of(made, i), want[i])
    assert KEY not in made.opt.state[made.params[2]]


def test_every_optimizer_averages_its_own_weights(backend, rule, rng):
    problem = random_problem(rng, [(7,), (65,)], 4, none=0.4)
    made = start(problem.values, backend, ema_decay=0.5)
    want = None
    for gradients in problem.gradients:
        advance(made, gradients)
        now = [p.detach().clone() for p in made.params]
        pairs = zip(now, want or now, strict=True)
        want = [p - (p - a) * 0.5 if want else p for p, a in pairs]
    for i, average in enumerate(want):
        assert_same_bits(average_of(made, i), average)


def test_a_group_that_comes_later_begins_with_a_copy(backend, rng):
    values = [torch.randn(6, generator=rng.torch) for _ in "ab"]
    made = start(values[:1], backend, ema_decay=0.9)
    advance(made, [torch.ones(6)])
    made.params += parameters(values[1:])
    made.opt.add_param_group({"params": made.params[1:], "ema_decay": 0.5})
    advance(made, [torch.ones(6), torch.ones(6)])
    assert_same_bits(average_of(made, 1), made.params[1].detach())


# Arguments

BAD = [
    (-0.1, ValueError),
    (1.5, ValueError),
    (math.nan, ValueError),
    ("often", TypeError),
    (torch.ones(2), ValueError),
]


@pytest.mark.parametrize(("decay", "error"), BAD)
def test_a_bad_decay_is_refused(decay, error):
    params = [torch.nn.Parameter(torch.ones(3))]
    with pytest.raises(error, match="ema_decay"):
        lrfused.AdamW(params, ema_decay=decay)
    with pytest.raises(error, match="ema_decay"):
        lrfused.AdamW([{"params": params, "ema_decay": decay}])


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_a_bad_interval_is_refused(every):
    with pytest.raises((TypeError, ValueError), match="ema_update_every"):
        lrfused.AdamW([torch.nn.Parameter(torch.ones(3))], ema_decay=0.5, ema_update_every=every)


def test_a_schedule_that_leaves_the_range_refuses_the_step(backend, rng):
    """Also before the group starts, since averages go on then; nothing is changed."""
    values = [torch.randn(5, generator=rng.torch) for _ in "ab"]
    groups = ({}, {"ema_decay": S.step * 0.75, "start_step": 5})
    made = start(values, backend, groups=groups)
    for _ in range(2):
        advance(made, [torch.ones(5), torch.ones(5)])
    before = [average_of(made, 1).clone(), *(p.detach().clone() for p in made.params)]
    with pytest.raises(
        RuntimeError, match=r"step 2: ema_decay of param_groups\[1\] is 1.5.*\[0, 1\]"
    ):
        advance(made, [torch.ones(5), torch.ones(5)])
    for got, want in zip([average_of(made, 1), *made.params], before, strict=True):
        assert_same_bits(got.detach(), want)


def test_what_cannot_be_averaged_is_refused():
    """A parameter that would never be looked at otherwise."""
    moving = torch.nn.Parameter(torch.ones(3))
    whole = torch.nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)
    opt = lrfused.AdamW([moving, whole], ema_decay=0.5)
    moving.grad = torch.ones(3)
    with pytest.raises(TypeError, match=r"int64"):
        opt.step()
    assert opt.state == {}
