"""Bad arguments: an error that names the argument and the value."""

import inspect
import math

import pytest
import torch
from lib.contract import make_parameters, run
from lib.optimizers import CLASSES

import lrfused
from lrfused import native, schedules

NAN, INF = math.nan, math.inf
NUMBERS = ("lr", "eps", "weight_decay", "momentum", "max_grad_norm", "clip_value", "agc")
BAD_NUMBERS = (-1.0, -1e-300, NAN, -INF, "fast", [0.1], None, 1j, True)
NONE_IS_FINE = ("max_grad_norm", "clip_value", "agc")

BAD = [(name, value) for name in NUMBERS for value in BAD_NUMBERS]
BAD = [(n, v) for n, v in BAD if not (v is None and n in NONE_IS_FINE)]
BAD += [(name, INF) for name in ("lr", "eps", "weight_decay", "momentum")]
BAD += [("dampening", value) for value in BAD_NUMBERS if value not in (-1.0, -1e-300)]
BAD += [(name, torch.zeros(2)) for name in NUMBERS]
BAD += [
    ("betas", value)
    for value in (0.9, (0.9,), (0.9, 0.9, 0.9), None, "ab", (1.0, 0.9), (0.9, 1.0), (-0.1, 0.9))
    + ((NAN, 0.9), (0.9, INF), ("a", 0.9), (0.9, None), {0.9, 0.8}, (0.9, torch.zeros(2)))
]
BAD += [("norm_type", value) for value in (1.0, 0, -2.0, 3, "inf", None, NAN)]
BAD += [("nonfinite", value) for value in ("explode", None, 1, "SKIP")]
BAD += [("accumulation_steps", value) for value in (0, -1, 1.5, "2", None, True)]
BAD += [("loss_scale", value) for value in (0.0, -1.0, NAN, INF, 1e300, "static", [1], True)]
BAD += [("weight_decay_mode", value) for value in ("l2", None, 0)]
BAD += [("peak_lr", value) for value in (0.0, -1.0, NAN, INF, "high", True)]
BAD += [("bias_correction", value) for value in ("none", None, True)]
BAD += [("agc_by", value) for value in ("row", None, 1)]
BAD += [("start_step", value) for value in (-1, 0.5, "1", None, 2**60, True)]
BAD += [("backend", value) for value in ("gpu", None, 1)]
BAD += [
    (name, value)
    for name in ("amsgrad", "nesterov", "maximize", "advance_schedule_on_skip", "write_grads")
    + ("always_measure", "amp_scaling")
    for value in ("no", 2, None)
]
BAD += [("differentiable", True)]
BAD += [("lr", torch.tensor(value)) for value in (-1.0, NAN)]


def name_of(value):
    return str(value).replace(" ", "")


def over(bad):
    """Every class that has the argument; "l2" is how SGD decays."""
    cases = [
        pytest.param(kind, name, value, id=f"{kind.name}-{name}={name_of(value)}")
        for kind in CLASSES
        for name, value in bad
        if name in arguments_of(kind.cls) and (value != "l2" or kind.cls is not lrfused.SGD)
    ]
    return pytest.mark.parametrize(("kind", "name", "value"), cases)


def arguments_of(cls):
    return inspect.signature(cls).parameters


@over(BAD)
def test_a_bad_argument_is_named(rng, kind, name, value):
    """Every argument of a wrong type or out of range: TypeError or ValueError that names it, shows
    the value and says the rule."""
    with pytest.raises((TypeError, ValueError)) as error:
        kind.ours(make_parameters(rng), **{name: value})
    message = str(error.value)
    assert name in message and "must" in message
    assert any(text in message for text in shown(value)), message


def shown(value):
    """What a message may show of a value."""
    if isinstance(value, torch.Tensor):
        return [str(tuple(value.shape))] if value.dim() else [str(value.item()), str(value)]
    if isinstance(value, (tuple, list, set)):
        return [repr(value), *(text for v in value for text in shown(v))]
    return [repr(value), type(value).__name__, "must be False"]


IN_GROUPS = [
    (n, v)
    for n, v in BAD
    if n
    in (
        "lr",
        "eps",
        "weight_decay",
        "betas",
        "momentum",
        "dampening",
        "clip_value",
        "agc",
        "agc_by",
        "start_step",
        "weight_decay_mode",
        "peak_lr",
        "bias_correction",
    )
]


@over(IN_GROUPS)
def test_a_bad_argument_in_a_group_is_named(rng, kind, name, value):
    """The same in a parameter group, at construction and in add_param_group."""
    group = {"params": make_parameters(rng), name: value}
    with pytest.raises((TypeError, ValueError), match=name):
        kind.ours([group])
    opt = kind.ours(make_parameters(rng))
    with pytest.raises((TypeError, ValueError), match=name):
        opt.add_param_group({**group, "params": make_parameters(rng)})
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize("params", [torch.zeros(3), [1.0], ["a"], [None], [[torch.zeros(2)]], 5])
def test_bad_parameters_are_refused(kind, params):
    """params that are no iterable of tensors or groups: TypeError or ValueError, as torch's."""
    with pytest.raises((TypeError, ValueError)):
        kind.theirs(params)
    with pytest.raises((TypeError, ValueError)):
        kind.ours(params)


def test_a_missing_backend_raises_and_auto_takes_another(rng, kind, monkeypatch):
    """backend="cpu" without the C++ module says why there is none and never falls back."""
    monkeypatch.setattr(native, "cpu", None)
    monkeypatch.setattr(native, "why_not_cpu", "no compiler on this moon")
    with pytest.raises(RuntimeError, match=r"backend: 'cpu' .*no compiler on this moon"):
        kind.ours(make_parameters(rng), backend="cpu")
    opt = kind.ours(make_parameters(rng), backend="auto")
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 1 and opt._engine.table.backend.name == "reference"


def test_unknown_arguments_are_refused(rng, kind):
    """A misspelt argument is a TypeError that names it."""
    with pytest.raises(TypeError, match="max_norm"):
        kind.ours(make_parameters(rng), max_norm=1.0)


def test_lr_ratio_needs_a_peak(rng, kind):
    """weight_decay_mode="lr_ratio" with a scheduled lr and no peak_lr says what is missing."""
    with pytest.raises(ValueError, match="peak_lr"):
        kind.ours(make_parameters(rng), lr=schedules.linear(0, 1, 9), weight_decay_mode="lr_ratio")


def test_a_schedule_that_fails_later_names_group_and_step(rng, kind):
    """A schedule that becomes nan, infinite, or a beta of 1: the step raises, names group, step and
    hyperparameter, changes nothing, and goes on raising until it is put right."""
    spans = {
        "lr": schedules.join([schedules.constant(0.1), schedules.constant(0.0)], [2]),
        "weight_decay": schedules.table([0.1, 0.1, 1e39]),
    }
    bad = 1.0 / spans["lr"]
    opt = kind.ours([{"params": make_parameters(rng)}, {"params": make_parameters(rng), "lr": bad}])
    for _ in range(2):
        for group in opt.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        opt.step()
    kept = [p.detach().clone() for g in opt.param_groups for p in g["params"]]
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"step 2: lr of param_groups\[1\] is inf"):
            opt.step()
        now = [p for g in opt.param_groups for p in g["params"]]
        assert all(torch.equal(a, b) for a, b in zip(now, kept, strict=True))
        assert opt.metrics()["steps"] == 2
    opt.param_groups[1]["lr"] = 0.1
    with pytest.warns(UserWarning, match="lr"):
        opt.step()
    assert opt.metrics()["steps"] == 3
