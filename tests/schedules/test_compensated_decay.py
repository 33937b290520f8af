"""compensated_decay: the same shrinkage, by arbitrary precision and by optimizers on weights."""

import math

import mpmath
import pytest
import torch

import lrfused
from lrfused import schedules as S

INF, NAN = math.inf, math.nan


def shrinkage(lr, decay, steps):
    """The product of 1 - lr(t) * decay(t) in 50 digits."""
    with mpmath.workdps(50):
        factors = (1 - mpmath.mpf(lr(t)) * mpmath.mpf(decay(t)) for t in range(steps))
        return mpmath.fprod(factors)


def random_run(rng, warmup, total):
    """One that can be made up for even in a single update, by a factor of some 1e-5 or more."""
    peak = float(rng.numpy.uniform(0.01, 0.3))
    lr = S.warmup_cosine(peak, warmup, total, 0.1 * peak, start="1/n")
    return lr, float(rng.numpy.uniform(0.05, 0.7))


@pytest.mark.parametrize(("warmup", "total"), [(1, 2), (3, 17), (40, 101), (99, 100), (0, 7)])
def test_the_shrinkage_is_that_of_constant_decay(rng, warmup, total):
    lr, weight_decay = random_run(rng, warmup, total)
    decay = S.compensated_decay(lr, weight_decay, warmup, total)
    got, wanted = shrinkage(lr, decay, total), shrinkage(lr, S.constant(weight_decay), total)
    # The decay is a float64: the smallest factor, 1 - lr * decay, says what that is of the product.
    smallest = float(1.0 - (lr.values(range(total)) * decay.values(range(total))).max())
    assert abs(got / wanted - 1) < 1e-14 * total / smallest
    assert decay.values(range(warmup)).tolist() == [0.0] * warmup
    after = decay.values([warmup, total, 2**53])
    assert after.tolist() == [decay(warmup)] * 3
    assert decay(warmup) >= weight_decay * (1 - 1e-14)


def test_decay_during_a_warmup_reaches_what_a_run_without_one_does(rng):
    lr, weight_decay = random_run(rng, 30, 101)
    without = lr.at(S.maximum(S.step, 30))
    options = {"warmup_decay": weight_decay, "reference_lr": without}
    decay = S.compensated_decay(lr, weight_decay, 30, 101, **options)
    got, wanted = shrinkage(lr, decay, 101), shrinkage(without, S.constant(weight_decay), 101)
    assert abs(got / wanted - 1) < 1e-12
    assert decay(29) == weight_decay < decay(30)


def test_the_solution_is_the_root_of_the_products(rng):
    """Against the root by bisection in 50 digits, far from the first-order formula.

    The smallest factor is 1e-4 or more; above a weight_decay of 1.067 it would be refused.
    """
    lr, weight_decay = S.warmup_linear(0.9, 20, 50, 0.1), float(rng.numpy.uniform(0.8, 1.0))
    got = S.compensated_decay(lr, weight_decay, 20, 50)(20)
    with mpmath.workdps(50):
        wanted = shrinkage(lr, S.constant(weight_decay), 50)
        low, high = mpmath.mpf(0), 1 / mpmath.mpf(lr(20))
        for _ in range(120):
            middle = (low + high) / 2
            product = mpmath.fprod(1 - mpmath.mpf(lr(t)) * middle for t in range(20, 50))
            low, high = (middle, high) if product > wanted else (low, middle)
        assert abs(got / low - 1) < 1e-13
    lrs = lr.values(range(50))
    first_order = weight_decay * lrs.sum() / lrs[20:].sum()
    assert abs(got / first_order - 1) > 0.01


def test_small_decay_is_first_order(rng):
    lr, _ = random_run(rng, 10, 60)
    lrs = lr.values(range(60))
    first_order = 1e-7 * lrs.sum() / lrs[10:].sum()
    assert S.compensated_decay(lr, 1e-7, 10, 60)(10) == pytest.approx(first_order, rel=1e-6)


def test_a_constant_lr_has_a_closed_form():
    decay = S.compensated_decay(0.5, 0.5, warmup_steps=2, total_steps=4)
    assert decay(2) == pytest.approx((1 - 0.75**2) / 0.5, rel=1e-15)


def test_nothing_to_make_up_for():
    lr = S.warmup_constant(0.5, 4)
    assert S.compensated_decay(lr, 0.0, 4, 9).values([0, 4]).tolist() == [0.0, 0.0]
    assert S.compensated_decay(lr, 0.25, 0, 9)(0) == pytest.approx(0.25, rel=1e-14)
    assert S.compensated_decay(S.constant(0.0), 0.25, 4, 9)(5) == 0.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e-300, 1e-150, 1e150, 1e308])
def test_lrs_of_any_magnitude(size):
    """Only the products matter."""
    lr, weight_decay = S.warmup_constant(0.5, 3), 0.75
    wanted = S.compensated_decay(lr, weight_decay, 3, 7)(3)
    got = S.compensated_decay(lr.scaled(size), weight_decay / size, 3, 7)(3)
    assert got * size == pytest.approx(wanted, rel=1e-13)
    assert S.compensated_decay(lr.scaled(size), 0.0, 3, 7)(3) == 0.0


@pytest.mark.filterwarnings("error")
def test_it_is_exact_or_refused(rng):
    """Of hard runs: the logarithm of the shrinkage within 2e-9, or a ValueError."""
    refused = 0
    for _ in range(60):
        total = int(rng.numpy.integers(2, 30))
        warmup = int(rng.numpy.integers(0, total))
        lrs = 10.0 ** rng.numpy.uniform(-8, 0, total)
        lr, weight_decay = S.table(lrs.tolist()), float(rng.numpy.uniform(0, 0.999999) / lrs.max())
        try:
            decay = S.compensated_decay(lr, weight_decay, warmup, total)
        except ValueError as error:
            assert str(error).startswith("warmup_steps: too little")
            refused += 1
            continue
        with mpmath.workdps(50):
            got = mpmath.log(shrinkage(lr, decay, total))
            wanted = mpmath.log(shrinkage(lr, S.constant(weight_decay), total))
            assert abs(got / wanted - 1) < 2e-9
    assert refused < 50


def test_the_lr_is_evaluated_once(monkeypatch):
    """It may have 10**7 values."""
    evaluated = []
    values = S.Schedule.values
    monkeypatch.setattr(
        S.Schedule, "values", lambda self, steps: evaluated.append(self) or values(self, steps)
    )
    S.compensated_decay(S.warmup_constant(0.5, 4), 0.25, 4, 9)
    assert len(evaluated) == 1


@pytest.mark.parametrize("cls", [lrfused.AdamW, lrfused.Lion])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_weights_without_gradient_shrink_as_much(rng, cls, dtype, bound, backend):
    """A whole run of the optimizer with gradients of 0, within 1e-6 in float32."""
    warmup, total = 12, 41
    lr, weight_decay = random_run(rng, warmup, total)
    decay = S.compensated_decay(lr, weight_decay, warmup, total)
    start = 1 + torch.rand(37, generator=rng.torch, dtype=torch.float64)
    weight = torch.nn.Parameter(start.to(dtype))
    before = weight.detach().double().clone()
    weight.grad = torch.zeros_like(weight)
    opt = cls([weight], lr=lr, weight_decay=decay, backend=backend)
    for _ in range(total):
        opt.step()
    wanted = float(shrinkage(lr, S.constant(weight_decay), total))
    assert wanted < 0.9999
    assert ((weight.detach().double() / before / wanted - 1).abs() < bound).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.5}, "^lr: must not be negative"),
        ({"lr": NAN}, "^lr: must be finite"),
        ({"lr": S.linear(0.5, 0.0, 4) - 0.25}, "^lr: must be finite and not negative.* at step 3"),
        ({"lr": 1.0 / S.step}, "^lr: must be finite and not negative, got inf at step 0"),
        ({"lr": S.input(torch.tensor(0.5), "x")}, "^lr: must depend on the step alone"),
        ({"reference_lr": INF}, "^reference_lr: must be finite"),
        ({"reference_lr": S.step - 1.0}, "^reference_lr: .*got -1.0 at step 0"),
        ({"total_steps": 4}, r"^total_steps: must be greater than warmup_steps \(4\), got 4"),
        ({"total_steps": 10**7 + 1}, "^total_steps: must be at most 10000000"),
        ({"weight_decay": 2.5}, r"^weight_decay: .*less than 1, got 2.5 \* 0.5 at step 4"),
        ({"weight_decay": 1e308, "lr": 1e10}, "^weight_decay: .*less than 1"),
        ({"warmup_decay": 3.0}, r"^warmup_decay: .*less than 1, got 3.0 \* 0.375 at step 3"),
        ({"warmup_decay": 1.9, "weight_decay": 0.1}, "^warmup_decay: 1.9 shrinks the weights by"),
        ({"lr": S.linear(0.5, 0.0, 4)}, "^lr: is 0 at every step after the warmup"),
        (
            {"lr": 0.1, "weight_decay": 5.0, "warmup_steps": 99, "total_steps": 100},
            "^warmup_steps: too little of the run is left after 99 of 100 updates",
        ),
        (
            {"lr": 0.1, "weight_decay": 9.0, "warmup_steps": 90, "total_steps": 100},
            "^warmup_steps: too little",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    usual = {"lr": S.warmup_constant(0.5, 4), "weight_decay": 0.5}
    usual |= {"warmup_steps": 4, "total_steps": 9}
    with pytest.raises(ValueError, match=message):
        S.compensated_decay(**{**usual, **options})


@pytest.mark.parametrize("bad", [None, True, "0.1", [0.1]])
def test_an_lr_of_the_wrong_type(bad):
    with pytest.raises(TypeError, match=r"^lr"):
        S.compensated_decay(bad, 0.5, 4, 9)
