"""What people write for a hyperparameter or a loss scale: taken, or the error says what to write.

Every line that is said works when it is written.
"""

import functools
import re

import numpy as np
import pytest
import torch
from lib.contract import assert_same_run, give_gradients, make_parameters, run, twin, warmup
from lib.optimizers import CLASSES, FIRST
from torch.nn import Parameter
from torch.optim import lr_scheduler as L

import lrfused
from lrfused import schedules

LIMITS = ("clip_value", "agc", "max_grad_norm")


def names_of(kind):
    """Of the hyperparameters in groups, as users call them."""
    pair = ["betas[0]", "betas[1]"] if "betas" in kind.hyperparameters else []
    return [*(key for key in kind.hyperparameters if key != "betas"), *pair]


def scheduler(cls, *arguments):
    return cls(torch.optim.SGD([Parameter(torch.ones(1))], lr=0.5), *arguments)


def halving(step):
    return 0.5 ** (step + 1)


# What is written, what the message calls it, and the line that it says, for lr.
WRITTEN = {
    "lambda": (lambda step: 0.1, "a function", "schedules.from_function(fn, steps=total_steps)"),
    "function": (halving, "a function", "schedules.from_function(fn, steps=total_steps)"),
    "partial": (
        functools.partial(pow, 0.5),
        "a partial",
        "schedules.from_function(fn, steps=total_steps)",
    ),
    "scheduler": (
        scheduler(L.StepLR, 3),
        "a StepLR",
        "schedules.from_torch(scheduler, steps=total_steps)",
    ),
    "LambdaLR": (
        scheduler(L.LambdaLR, halving),
        "a LambdaLR",
        "schedules.from_torch(scheduler, steps=total_steps)",
    ),
    "scheduler class": (
        L.StepLR,
        r"the class StepLR.* make scheduler = StepLR\(optimizer, \.\.\.\)",
        "schedules.from_torch(scheduler, steps=total_steps)",
    ),
    "uncalled": (
        schedules.cosine,
        r"the function schedules\.cosine",
        "schedules.cosine(start, end, steps)",
    ),
}


def line(name, expression):
    """As an argument or in a group."""
    if name.startswith("betas"):
        both = (expression, "beta2") if name == "betas[0]" else ("beta1", expression)
        return f"betas=({', '.join(both)})"
    return f"{name}={expression}"


def arguments_of(name, value):
    if name.startswith("betas"):
        return {"betas": (value, 0.9) if name == "betas[0]" else (0.9, value)}
    return {name: value}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.name}-{name}")
        for kind in CLASSES
        for name in (*names_of(kind), *(LIMITS if kind is FIRST else ()))
    ],
)
@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_the_error_says_the_line_to_write(rng, kind, written, name):
    """A function, a scheduler of torch's, the class of one, or a schedule that was not called, for
    any hyperparameter, in the constructor, in a group, or written to a group in mid-run: TypeError
    with the argument's name and the line; nothing has changed."""
    value, called, expression = written
    message = re.escape(name) + f": must be a number, a Tensor or a Schedule, got {called}"
    message += ".*" + re.escape(line(name, expression))
    own = arguments_of(name, value)
    with pytest.raises(TypeError, match="^" + message):
        kind.ours(make_parameters(rng), **own)
    opt = kind.ours(make_parameters(rng))
    if name != "max_grad_norm":
        with pytest.raises(TypeError, match="^" + message):
            opt.add_param_group({"params": make_parameters(rng), **own})
    if name not in LIMITS:
        kept = dict(opt.param_groups[0])
        opt.param_groups[0].update(own)
        give_gradients(rng, opt)
        with pytest.raises(TypeError, match=r"^param_groups\[0\]: " + message):
            opt.step()
        opt.param_groups[0].update(kept)
    assert len(opt.param_groups) == 1 and opt.metrics()["steps"] == 0


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_the_line_works(rng, kind, written):
    """What the message says, run as it is with names of the caller's."""
    value, _, expression = written
    names = {"schedules": schedules, "fn": halving, "total_steps": 9}
    names |= {"start": 0.5, "end": 0.1, "steps": 9}
    names["scheduler"] = value if isinstance(value, L.LRScheduler) else scheduler(L.StepLR, 3)
    for name in names_of(kind):
        both = f"dict({line(name, expression)})"
        own = eval(both, {**names, "beta1": 0.5, "beta2": 0.75})
        opt = kind.ours(make_parameters(rng), **own)
        assert f"{name} follows: Schedule(" in repr(opt)
        run(rng, 2, opt)


@pytest.mark.parametrize("made_of", [list, tuple])
def test_a_list_of_schedules_is_for_groups_or_for_join(rng, kind, made_of):
    """A list, one a group as torch's LambdaLR takes it: the error says where they go."""
    both = made_of([schedules.cosine(0.5, 0.1, 5), schedules.constant(0.1)])
    with pytest.raises(TypeError, match=r"lr: .* a list of schedules; a schedule for each") as e:
        kind.ours(make_parameters(rng), lr=both)
    assert "[{'params': ..., 'lr': schedule}, ...]" in str(e.value)
    assert "schedules.join(schedules, boundaries)" in str(e.value)
    first, second = make_parameters(rng), make_parameters(rng)
    groups = [
        {"params": p, "lr": schedule} for p, schedule in zip((first, second), both, strict=True)
    ]
    opt = kind.ours(groups)
    run(rng, 3, opt)
    assert opt.metrics()["lr"] == [both[0](2), 0.1]
    joined = kind.ours(make_parameters(rng), lr=schedules.join(both, [2]))
    run(rng, 4, joined)
    assert joined.metrics()["lr"] == [0.1]
    with pytest.raises(TypeError, match=r"max_grad_norm: .* a list of schedules; one schedule"):
        kind.ours(make_parameters(rng), max_grad_norm=both)


def test_what_follows_a_metric_or_only_reports_is_no_schedule(rng, kind):
    """ReduceLROnPlateau and ReportLR: what to do instead, not a line that would fail."""
    report = lrfused.ReportLR(kind.ours(make_parameters(rng), lr=warmup()))
    for value, message in (
        (scheduler(L.ReduceLROnPlateau), "follows a metric; give a number and let the scheduler"),
        (report, "a ReportLR, which only reports; give the Schedule itself"),
        (lrfused.LossScale, "the class LossScale; it takes an object$"),
    ):
        with pytest.raises(TypeError, match=f"lr: must be .*{message}"):
            kind.ours(make_parameters(rng), lr=value)


SCALERS = {
    "GradScaler": torch.amp.GradScaler("cpu", enabled=False),
    "its class": torch.amp.GradScaler,
}


@pytest.mark.parametrize("scaler", SCALERS.values(), ids=SCALERS)
def test_a_grad_scaler_is_no_loss_scale(rng, kind, scaler):
    """loss_scale=GradScaler(): both ways that work, and they do."""
    with pytest.raises(TypeError, match="loss_scale: got a GradScaler") as error:
        kind.ours(make_parameters(rng), loss_scale=scaler)
    first, second = str(error.value).split("or leave the GradScaler out: ")
    assert "scaler.step(optimizer)" in first
    setting, *lines = second.split(", ")
    params = make_parameters(rng)
    optimizer = eval(f"make(params, {setting})", {"make": kind.ours, "params": params})
    loss = sum(p.square().sum() for p in params)
    for text in lines:
        exec(text, {"optimizer": optimizer, "loss": loss})
    grad_scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    other = kind.ours(twin(params), lr=0.0)
    grad_scaler.scale(sum(p.sum() for p in other.param_groups[0]["params"])).backward()
    exec("scaler.step(optimizer)", {"scaler": grad_scaler, "optimizer": other})
    assert optimizer.metrics()["steps"] == other.metrics()["steps"] == 1


def test_the_class_is_no_loss_scale(rng, kind):
    """loss_scale=LossScale: call it."""
    with pytest.raises(TypeError, match="loss_scale: got the class LossScale; call it"):
        kind.ours(make_parameters(rng), loss_scale=lrfused.LossScale)


NUMBERS = {
    "NumPy scalar": np.float64,
    "NumPy float32": np.float32,
    "array of no dimension": np.array,
    "array of one element": lambda value: np.array([value]),
    "integer": int,
}


@pytest.mark.parametrize("made", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_other_libraries_are_numbers(rng, kind, backend, made):
    """NumPy's scalars and arrays of one element, integers: as the Python float, in the constructor
    and written to a group, and so is what is saved of them."""
    params = make_parameters(rng)
    values = {"lr": 2.0, "weight_decay": 0.0, "eps": 1.0, "momentum": 1.0, "dampening": 0.0}
    values = {name: value for name, value in values.items() if name in kind.hyperparameters}
    theirs = {name: made(value) for name, value in values.items()}
    limits = {"clip_value": made(1), "max_grad_norm": made(2), "loss_scale": 4.0}
    plain = {"clip_value": 1.0, "max_grad_norm": 2.0, "loss_scale": 4.0}
    wanted = kind.ours(params, **values, **plain, backend=backend)
    first = kind.ours(twin(params), **theirs, **limits, backend=backend)
    second = kind.ours(twin(params), **limits, backend=backend)
    second.param_groups[0].update(theirs)
    run(rng, 2, wanted, first, second)
    second.load_state_dict(second.state_dict())
    run(rng, 2, wanted, first, second)
    for opt in (first, second):
        assert_same_run(opt, wanted)
        assert opt.metrics() == wanted.metrics()
    assert all(type(first.param_groups[0][name]) is float for name in values)
