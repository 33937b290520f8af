"""The reference (and with it every backend) against torch.optim.AdamW and closed forms."""

import numpy as np
import pytest
import torch
from lib.runs import (
    SMALL,
    advance,
    assert_same_bits,
    assert_within,
    numpy_of,
    parameters,
    random_problem,
    run,
    set_gradients,
    shorter,
    start,
)

EPSILON = {torch.float64: 2.0**-52, torch.float32: 2.0**-23}
OPTIONS = {
    "default": {},
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True},
    "large decay": {"weight_decay": 0.9, "lr": 0.1},
    "other betas": {"betas": (0.5, 0.9), "eps": 1e-3},
    "no momentum": {"betas": (0.0, 0.99)},
    "no decay": {"weight_decay": 0.0},
}


def torchs(values, **options):
    """torch's plain loop over the same parameters."""
    params = parameters(values)
    return params, torch.optim.AdamW(params, foreach=False, **options)


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("name", OPTIONS)
def test_one_step_is_within_a_few_ulp_of_torchs(rng, backend, name, dtype):
    """From the same state at every step of a run: 4 ulp of the numbers that are added."""
    problem = random_problem(rng, SMALL, shorter(backend, 25), (dtype,), none=0.0)
    few_ulp = 4 * EPSILON[dtype]
    mine = start(problem.values, backend, **OPTIONS[name])
    params, opt = torchs(problem.values, **OPTIONS[name])
    for gradients in problem.gradients:
        before = [[numpy_of(x) for x in (p, *moments(opt, p))] for p in params]
        advance(mine, gradients)
        set_gradients(params, gradients)
        opt.step()
        for i, (p, gradient) in enumerate(zip(params, gradients, strict=True)):
            (old_p, old_m, old_v), g = before[i], np.abs(numpy_of(gradient))
            got, want = mine.opt.state[mine.params[i]], opt.state[p]
            added = {"exp_avg": np.abs(old_m) + g, "exp_avg_sq": np.abs(old_v) + g**2}
            for key, scale in added.items():
                assert_within(numpy_of(got[key]), numpy_of(want[key]), few_ulp, scale, key)
            update, magnified = update_scale(opt.param_groups[0], want, added["exp_avg"])
            allowed = few_ulp * (np.abs(old_p) + update) + magnified * update
            assert_within(numpy_of(mine.params[i]), numpy_of(p), 1.0, allowed, f"p[{i}]")
            copy_state(mine, i, p, opt)


def moments(opt, p):
    """Those that torch has, or what they start from."""
    zero = torch.zeros_like(p)
    return [opt.state[p].get(key, zero) for key in ("exp_avg", "exp_avg_sq")]


def update_scale(group, state, size_of_m):
    """How large the update's terms are, and how wrong its scalars may be.

    beta**t has up to t roundings of 2^-53, which 1 - beta**t magnifies.
    """
    t = float(state["step"])
    beta1, beta2 = group["betas"]
    v = numpy_of(state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"])
    denominator = np.sqrt(v / (1 - beta2**t)) + group["eps"]
    update = group["lr"] * size_of_m / (1 - beta1**t) / denominator
    return update, t * 2.0**-53 / (1 - beta2**t)


def copy_state(mine, i, p, opt):
    """The next step starts from torch's numbers."""
    with torch.no_grad():
        mine.params[i].copy_(p)
        for key, value in opt.state[p].items():
            if key != "step":
                mine.opt.state[mine.params[i]][key].copy_(value)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 3e-5)])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_long_run_stays_with_torchs(rng, backend, name, dtype, bound):
    """200 steps, relative to the largest parameter."""
    problem = random_problem(rng, [(5, 13), (), (65,)], shorter(backend, 200), (dtype,))
    mine = run(problem, backend, **OPTIONS[name])
    params, opt = torchs(problem.values, **OPTIONS[name])
    for gradients in problem.gradients:
        set_gradients(params, gradients)
        opt.step()
    for i, (p, q) in enumerate(zip(mine.params, params, strict=True)):
        largest = float(q.detach().abs().max()) + 1
        assert_within(numpy_of(p), numpy_of(q), bound, largest, f"p[{i}]")
        assert float(mine.opt.state[p]["step"]) == float(opt.state[q]["step"])


# Closed forms, in float64. u is an ulp of numbers near the parameters, |p| < 8.

U = 2.0**-50


def float64_problem(rng, steps):
    return random_problem(rng, SMALL, steps, (torch.float64,), none=0.0)


@pytest.mark.parametrize("maximize", [False, True])
def test_the_first_step(rng, backend, maximize):
    """m / (1 - beta1) = g and v / (1 - beta2) = g**2."""
    problem = float64_problem(rng, 1)
    lr, decay, eps = 0.05, 0.2, 1e-3
    mine = run(problem, backend, lr=lr, weight_decay=decay, eps=eps, maximize=maximize)
    sign = -1 if maximize else 1
    for p, old, g in zip(mine.params, problem.values, problem.gradients[0], strict=True):
        want = old * (1 - lr * decay) - sign * lr * g / (g.abs() + eps)
        assert_within(numpy_of(p), numpy_of(want), 4 * U, np.ones(p.shape))


@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_constant_gradient(rng, backend, amsgrad):
    """Corrected moments are g and g**2 at every step."""
    problem = float64_problem(rng, 1)
    lr, eps, steps = 0.01, 1e-6, shorter(backend, 100)
    mine = start(problem.values, backend, lr=lr, weight_decay=0.0, eps=eps, amsgrad=amsgrad)
    for _ in range(steps):
        advance(mine, problem.gradients[0])
    for p, old, g in zip(mine.params, problem.values, problem.gradients[0], strict=True):
        want = old - steps * lr * g / (g.abs() + eps)
        assert_within(numpy_of(p), numpy_of(want), 4 * steps * U, np.ones(p.shape))


DECAYS = {
    "lr": (lambda lr, decay: 1 - lr * decay, {}),
    "independent": (lambda lr, decay: 1 - decay, {}),
    "lr_ratio": (lambda lr, decay: 1 - decay * (lr / 0.5), {"peak_lr": 0.5}),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mode", DECAYS)
def test_pure_decay(rng, backend, mode, dtype):
    """Zero gradients: the product of the decay factors, rounded at every step and no more."""
    factor, extra = DECAYS[mode]
    lr, decay, steps = 0.125, 0.03, shorter(backend, 100)
    problem = random_problem(rng, SMALL, 1, (dtype,), none=0.0)
    options = {"lr": lr, "weight_decay": decay, "weight_decay_mode": mode, **extra}
    mine = start(problem.values, backend, **options)
    for _ in range(steps):
        advance(mine, [torch.zeros_like(value) for value in problem.values])
    for p, old in zip(mine.params, problem.values, strict=True):
        rounded = old.clone()
        for _ in range(steps):
            rounded *= torch.tensor(factor(lr, decay), dtype=dtype)
        assert_same_bits(p, rounded)
        bound = steps * EPSILON[dtype]
        assert_within(numpy_of(p), numpy_of(old) * factor(lr, decay) ** steps, bound)


def test_lr_ratio_takes_a_number_lrs_own_value_as_peak(rng, backend):
    problem = float64_problem(rng, 1)
    gradients = [torch.zeros_like(value) for value in problem.values]
    mine = start(problem.values, backend, lr=0.01, weight_decay=0.25, weight_decay_mode="lr_ratio")
    advance(mine, gradients)
    mine.opt.param_groups[0]["lr"] = 0.005
    advance(mine, gradients)
    for p, old in zip(mine.params, problem.values, strict=True):
        assert_same_bits(p, old * 0.75 * 0.875)
