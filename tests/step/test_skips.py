"""A skipped step leaves no trace: the run equals the run without it, bit for bit."""

import pytest
import torch
from lib.runs import (
    Problem,
    advance,
    assert_same_bits,
    assert_same_contents,
    contents,
    host_numbers,
    parameters,
    random_problem,
    run,
    set_gradients,
    shorter,
    start,
)

from lrfused import LossScale
from lrfused import schedules as S

INF, NAN = float("inf"), float("nan")
SHAPES = [(5, 13), (), (0,), (600,), (65,)]
BAD_STEPS = (0, 3, 4, 9, 15)
FIRST, MIDDLE, LAST = 0, 0.5, 1
COUNTERS = ("skipped_steps", "consecutive_skips")

# The backoff of the last one moves the scale by powers of two, which no bit of a result shows.
SKIPPING = {
    "skip": {"nonfinite": "skip"},
    "static": {"loss_scale": 64.0},
    "dynamic at its minimum": {"loss_scale": LossScale(init=64.0, minimum=64.0)},
    "dynamic": {"loss_scale": LossScale(init=2.0**20, growth_interval=4)},
}
LR = S.warmup_cosine(1e-2, 5, 14, 1e-4)
OF_RULES = {
    "adamw": {
        "weight_decay": S.linear(0.3, 0.0, 12),
        "betas": (S.linear(0.95, 0.8, 10), 0.99),
        "bias_correction": "product",
        "amsgrad": True,
    },
    "sgd": {"momentum": S.linear(0.0, 0.9, 10), "dampening": 0.3},
    "lion": {"betas": (S.linear(0.95, 0.8, 10), 0.99)},
}


def options_of(rule):
    """Schedules and clips of an optimizer."""
    common = {"lr": LR, "max_grad_norm": S.linear(2.0, 0.5, 14), "clip_value": 1.0}
    return {**common, **OF_RULES[rule.name]}


def spoil(gradients, tensor, element, value):
    """A step's gradients with one element that is not finite."""
    gradients = [None if g is None else g.clone() for g in gradients]
    full = [g for g in gradients if g is not None and g.numel()]
    spoiled = full[round(tensor * (len(full) - 1))]
    spoiled.view(-1)[round(element * (spoiled.numel() - 1))] = value
    return gradients


def with_and_without(rng, backend, tensor, element, value, dtypes=(torch.float32,)):
    """A problem with bad steps, and the problem that is left without them.

    The first good step has every gradient, too: the norm is added in the order of the table, which
    is made of the tensors that have had a gradient.
    """
    problem = random_problem(rng, SHAPES, shorter(backend, 16, least=10), dtypes)
    whole = random_problem(rng, SHAPES, 1, [value.dtype for value in problem.values[:1]])
    first_good = min(set(range(len(problem.gradients))) - set(BAD_STEPS))
    problem.gradients[first_good] = whole.gradients[0]
    everything = [
        spoil(gradients, tensor, element, value) if step in BAD_STEPS else gradients
        for step, gradients in enumerate(problem.gradients)
    ]
    good = [g for step, g in enumerate(problem.gradients) if step not in BAD_STEPS]
    return Problem(problem.values, everything), Problem(problem.values, good)


def run_scaled(problem, backend, **options):
    """The gradients are those of the loss times the scale of the moment."""
    made = start(problem.values, backend, **options)
    for gradients in problem.gradients:
        scale = float(made.opt.scale(torch.tensor(1.0)))
        advance(made, [None if g is None else g * scale for g in gradients])
    return made


def lasting(made):
    """Everything but the loss scale and what the test put into the gradients."""
    kept = {k: v for k, v in contents(made).items() if not k.startswith(("grad", "loss_scale"))}
    metrics = made.opt.metrics()
    return kept, host_numbers(made), metrics["steps"], metrics["clipped_steps"]


def assert_same_lasting(got, want):
    __tracebackhide__ = True
    (got_tensors, *got_rest), (want_tensors, *want_rest) = lasting(got), lasting(want)
    assert_same_contents(got_tensors, want_tensors)
    assert got_rest == want_rest


@pytest.mark.parametrize("element", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize("tensor", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize("name", SKIPPING)
def test_a_skipped_step_leaves_no_trace(rng, backend, rule, name, tensor, element):
    value = rng.numpy.choice([INF, -INF, NAN])
    everything, good = with_and_without(rng, backend, tensor, element, value)
    options = {**options_of(rule), **SKIPPING[name]}
    got = run_scaled(everything, backend, **options)
    assert_same_lasting(got, run_scaled(good, backend, **options))
    skipped = len(everything.gradients) - len(good.gradients)
    assert got.opt.metrics()["skipped_steps"] == skipped >= 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_skipped_step_leaves_no_trace_in_other_dtypes(rng, backend, rule, dtype):
    everything, good = with_and_without(rng, backend, LAST, MIDDLE, NAN, (dtype,))
    got, want = (run(x, backend, nonfinite="skip", **options_of(rule)) for x in (everything, good))
    assert_same_lasting(got, want)


def test_found_inf_of_a_grad_scaler_leaves_no_trace(rng, backend, rule):
    everything, good = with_and_without(rng, backend, FIRST, FIRST, 0.0)
    got = start(everything.values, backend, **options_of(rule))
    for step, gradients in enumerate(everything.gradients):
        got.opt.found_inf = torch.tensor(float(step in BAD_STEPS))
        advance(got, gradients)
    assert_same_lasting(got, run(good, backend, **options_of(rule)))


def test_a_finite_gradient_that_overflows_when_unscaled_is_skipped(backend, rule):
    made = start([torch.zeros(3)], backend, loss_scale=2.0**-20)
    advance(made, [torch.tensor([1.0, 1e35, 1.0])])
    assert made.metrics[-1]["skipped_steps"] == 1
    advance(made, [torch.tensor([1.0, 1e30, 1.0])])
    assert made.metrics[-1]["skipped_steps"] == 1


@pytest.mark.parametrize("name", ["skip", "static"])
def test_advance_schedule_on_skip_moves_the_schedule_alone(rng, backend, rule, name):
    """As a run without the bad steps whose schedule is read at the numbers of the good ones."""
    everything, good = with_and_without(rng, backend, MIDDLE, LAST, INF)
    steps = len(everything.gradients)
    numbers = [t for t in range(steps) if t not in BAD_STEPS]
    lr = LR
    picked = S.table([lr(t) for t in numbers])
    got = run_scaled(everything, backend, lr=lr, advance_schedule_on_skip=True, **SKIPPING[name])
    want = run_scaled(good, backend, lr=picked, **SKIPPING[name])
    for i, (p, q) in enumerate(zip(got.params, want.params, strict=True)):
        assert_same_bits(p, q, f"p[{i}]")
        for key, value in want.opt.state[q].items():
            assert_same_bits(got.opt.state[p][key], value, key)
    metrics = got.opt.metrics()
    assert (metrics["steps"], metrics["skipped_steps"]) == (steps, steps - len(numbers))
    assert got.opt.param_groups[0]["lr"] == lr(steps)


# nonfinite="raise"


@pytest.mark.parametrize("element", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize("tensor", [FIRST, MIDDLE, LAST])
def test_raise_names_the_step_and_changes_nothing(rng, backend, rule, tensor, element):
    problem = random_problem(rng, SHAPES, shorter(backend, 8, least=4))
    made = start(problem.values, backend, nonfinite="raise", **options_of(rule))
    for step, gradients in enumerate(problem.gradients):
        before, numbers = contents(made), host_numbers(made)
        set_gradients(made.params, spoil(gradients, tensor, element, (NAN, INF, -INF)[step % 3]))
        with pytest.raises(RuntimeError, match=f"step {step}: a gradient is not finite"):
            made.opt.step()
        after = contents(made)
        if step:  # at the first step zeros were allocated
            kept = {k for k in after if not k.startswith("grad")}
            assert_same_contents({k: after[k] for k in kept}, {k: before[k] for k in kept})
        assert host_numbers(made) == numbers
        advance(made, gradients)
    plain = run(problem, backend, **options_of(rule))
    assert_same_contents(contents(made), contents(plain))


# nonfinite="propagate"


@pytest.mark.parametrize("value", [INF, -INF, NAN])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_propagate_spreads_as_torchs_does(rng, backend, amsgrad, clip, value):
    problem = random_problem(rng, SHAPES, 6, (torch.float64,), none=0.0)
    problem.gradients[3] = spoil(problem.gradients[3], MIDDLE, MIDDLE, value)
    made = run(problem, backend, amsgrad=amsgrad, max_grad_norm=clip)
    params = parameters(problem.values)
    opt = torch.optim.AdamW(params, foreach=False, amsgrad=amsgrad)
    for gradients in problem.gradients:
        set_gradients(params, gradients)
        if clip:
            torch.nn.utils.clip_grad_norm_(params, clip, foreach=False)
        opt.step()
    assert any(torch.isnan(p).any() for p in params)
    for p, q in zip(made.params, params, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12, equal_nan=True)
        for key, want in opt.state[q].items():  # torch's lerp makes nan of an infinite moment
            got, finite = made.opt.state[p][key], torch.isfinite(want)
            assert torch.equal(torch.isfinite(got), finite)
            torch.testing.assert_close(got[finite], want[finite], rtol=1e-12, atol=1e-12)
