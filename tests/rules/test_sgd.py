"""SGD: torch.optim.SGD over random runs, the buffer's first gradient, Nesterov's conditions."""

import numpy as np
import pytest
import torch

import lrfused
from lrfused import schedules as S

from .sgd_runs import give_gradients, parameters

# In units of the last place of the largest value that stood there: 500 steps round a few times each
# on either side.
BOUND = 40.0


def random_options(rng):
    momentum = float(rng.numpy.choice([0.0, 0.5, 0.9, 0.99]))
    nesterov = bool(momentum and rng.numpy.integers(2))
    return {
        "lr": 10.0 ** rng.numpy.uniform(-3, -1),
        "momentum": momentum,
        "dampening": 0.0 if nesterov else float(rng.numpy.choice([0.0, 0.1, 0.7, -0.5])),
        "weight_decay": float(rng.numpy.choice([0.0, 1e-3, 0.1])),
        "nesterov": nesterov,
        "maximize": bool(rng.numpy.integers(2)),
    }


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("run", range(4))
def test_500_steps_are_torchs(rng, backend, dtype, run):
    """Late gradients, too (which torch's fused SGD refuses)."""
    options = random_options(rng)
    ours, theirs = parameters(rng, dtype)
    opt = lrfused.SGD(ours, backend=backend, **options)
    other = torch.optim.SGD(theirs, foreach=False, **options)
    largest: dict[str, torch.Tensor] = {}
    for _ in range(500):
        give_gradients(rng, ours, theirs)
        opt.step()
        other.step()
        for name, x in contents_of(other, theirs).items():
            largest[name] = torch.maximum(x.abs(), largest.get(name, x.abs()))
    got, want = contents_of(opt, ours), contents_of(other, theirs)
    assert got.keys() == want.keys() and len(got) == len(ours) * (1 + bool(options["momentum"]))
    for name, most in largest.items():
        ulp = torch.finfo(dtype).eps * most
        worst = ((got[name] - want[name]).abs() / ulp).max().item()
        assert worst <= BOUND, (options, name, worst)


def contents_of(opt, params):
    """Parameters and buffers by name."""
    found = {f"p{i}": p.detach().clone() for i, p in enumerate(params)}
    kept = [opt.state.get(p, {}).get("momentum_buffer") for p in params]
    return found | {f"buffer{i}": x.clone() for i, x in enumerate(kept) if x is not None}


def buffers(opt, params):
    return [opt.state[p]["momentum_buffer"].clone() for p in params if p in opt.state]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_first_gradient_enters_the_buffer_undamped(rng, backend):
    """Whenever momentum is switched on, by parameter; skipped steps do not count."""
    params, _ = parameters(rng, torch.float64)
    momentum = S.select(S.less(S.step, 3), 0.0, 0.5)
    opt = lrfused.SGD(
        params, lr=0.1, momentum=momentum, dampening=0.75, nonfinite="skip", backend=backend
    )
    expected: list[torch.Tensor | None] = [None] * len(params)
    for t in range(9):
        give_gradients(rng, params)
        skipped = t == 4
        if skipped:
            params[1].grad = torch.full((3,), float("inf"), dtype=torch.float64)
        elif t >= 3:
            for i, p in enumerate(params):
                if p.grad is not None:
                    old = expected[i]
                    expected[i] = (
                        p.grad.clone() if old is None else old * 0.5 + p.grad * (1.0 - 0.75)
                    )
        opt.step()
        for p, buffer in zip(params, expected, strict=True):
            if p in opt.state:
                now = opt.state[p]["momentum_buffer"]
                assert torch.equal(now, torch.zeros_like(now) if buffer is None else buffer)
    assert any(buffer is not None for buffer in expected)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_momentum_off_and_on_again_keeps_the_buffer(rng, backend):
    """As a number in the group, as torch has it."""
    ours, theirs = parameters(rng, torch.float64)
    opt = lrfused.SGD(ours, lr=0.1, momentum=0.9, dampening=0.5, backend=backend)
    other = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, dampening=0.5, foreach=False)
    for t in range(12):
        for o in (opt, other):
            o.param_groups[0]["momentum"] = 0.0 if 4 <= t < 8 else 0.9
        give_gradients(rng, ours, theirs)
        opt.step()
        other.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-13)
    for x, y in zip(buffers(opt, ours), buffers(other, theirs), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-13, atol=1e-13)


def test_momentum_that_comes_late_makes_the_buffer():
    weight = torch.nn.Parameter(torch.zeros(2))
    opt = lrfused.SGD([weight], lr=1.0, dampening=0.5)
    for momentum, buffer in ((0.0, None), (0.5, 1.0), (0.5, 1.0)):
        opt.param_groups[0]["momentum"] = momentum
        weight.grad = torch.ones(2)
        opt.step()
        state = opt.state.get(weight, {})
        assert ("momentum_buffer" in state) == (buffer is not None)
        if buffer is not None:
            assert state["momentum_buffer"].tolist() == [buffer] * 2


# Nesterov


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 0.0}, "Nesterov momentum requires a momentum and zero dampening"),
        (
            {"momentum": 0.9, "dampening": 0.5},
            "Nesterov momentum requires a momentum and zero dampening",
        ),
        ({"momentum": S.linear(0.0, 0.9, 5)}, "momentum: the schedule is 0.0 at step 0"),
    ],
    ids=["momentum", "dampening", "schedule"],
)
def test_nesterov_needs_momentum_and_no_dampening(options, message):
    with pytest.raises(ValueError, match=message):
        lrfused.SGD([torch.nn.Parameter(torch.ones(1))], nesterov=True, **options)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", ["momentum", "dampening"])
def test_a_schedule_that_breaks_nesterov_is_refused_at_its_step(backend, name):
    off = S.select(S.less(S.step, 2), 0.5, 0.0)
    options = {"momentum": off} if name == "momentum" else {"momentum": 0.5, "dampening": 0.5 - off}
    weight = torch.nn.Parameter(torch.ones(2))
    opt = lrfused.SGD([weight], lr=0.1, nesterov=True, backend=backend, **options)
    for _ in range(2):
        weight.grad = torch.ones(2)
        opt.step()
    before = weight.detach().clone(), opt.state[weight]["momentum_buffer"].clone()
    rule = "finite and greater than 0" if name == "momentum" else "0"
    rule += " with nesterov=True"
    with pytest.raises(RuntimeError, match=rf"step 2: {name} of param_groups\[0\] is .* {rule};"):
        opt.step()
    assert torch.equal(weight, before[0])
    assert torch.equal(opt.state[weight]["momentum_buffer"], before[1])


# Infinite and missing things


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.5},
        {"momentum": 0.5, "nesterov": True},
        {"momentum": 0.5, "dampening": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("first", [False, True])
def test_an_infinite_gradient_does_what_it_does_in_torch(backend, options, first):
    """What is not chosen is not multiplied by 0 either: infinity stays infinity. But what torch
    multiplies by 0 (damping by 1) is nan."""
    found = []
    for make in (
        lambda p: lrfused.SGD(p, lr=0.5, backend=backend, **options),
        lambda p: torch.optim.SGD(p, lr=0.5, **options),
    ):
        weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        opt = make([weight])
        for gradient in (float("inf") if first else 3.0, 1.0, float("inf"), -2.0):
            weight.grad = torch.tensor([gradient, gradient])
            opt.step()
        found.append(weight.detach())
    torch.testing.assert_close(*found, rtol=0.0, atol=0.0, equal_nan=True)


def test_without_momentum_there_is_no_state():
    weight = torch.nn.Parameter(torch.ones(2))
    opt = lrfused.SGD([weight], lr=0.1)
    for _ in range(3):
        weight.grad = torch.ones(2)
        opt.step()
    assert weight not in opt.state and opt.state_dict()["state"] == {}
    assert opt.metrics()["steps"] == 3


@pytest.mark.parametrize("mode", ["lr", "independent", "lr_ratio"])
def test_decoupled_decay(mode):
    weight = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    options = {"peak_lr": 0.5} if mode == "lr_ratio" else {}
    opt = lrfused.SGD([weight], lr=0.25, weight_decay=0.125, weight_decay_mode=mode, **options)
    weight.grad = torch.tensor([1.0], dtype=torch.float64)
    opt.step()
    factor = {"lr": 1 - 0.25 * 0.125, "independent": 1 - 0.125, "lr_ratio": 1 - 0.125 * 0.5}[mode]
    assert weight.item() == 2.0 * factor - 0.25


def test_the_sum_of_momenta_is_torchs_in_exact_numbers():
    """With powers of two nothing is rounded: equal, not close."""
    found = []
    for make in (lrfused.SGD, torch.optim.SGD):
        weight = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
        opt = make([weight], lr=0.25, momentum=0.5, weight_decay=0.5, nesterov=True)
        for t in range(6):
            weight.grad = torch.tensor(np.arange(4.0) * 2.0**-t)
            opt.step()
        found.append(weight.detach())
    assert torch.equal(*found)
