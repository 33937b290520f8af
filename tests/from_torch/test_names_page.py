"""docs/schedules.md: every row of its tables, evaluated as it stands there.

transformers, timm and optax are plain formulas here, and the packages themselves as well where
they are installed.
"""

import doctest
import importlib
import importlib.util
import inspect
import math
import re
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torch_lr

from lrfused import schedules as S

from . import plain_optax, plain_timm, plain_transformers
from .stepping import in_groups, optimizer, stepped

PAGE = Path(__file__).parents[2] / "docs" / "schedules.md"
TITLES = {
    "torch.optim.lr_scheduler": None,
    "transformers": plain_transformers,
    "timm": plain_timm,
    "optax": plain_optax,
}
MODULES = {"transformers": "transformers.optimization", "timm": "timm.scheduler", "optax": "optax"}
TIMES = 3  # how many times the longest length is run


def rows_of_the_page():
    """(library, theirs, ours, condition) of every row of every table."""
    library = None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            library = line[3:]
        if line.startswith("| `"):
            theirs, ours, same = re.fullmatch(
                r"\| `([^`]+)`[^`|]*\| `([^`]+)` \| (always|`[^`]+`)[^`|]*\|", line
            ).groups()
            yield library, theirs, ours, None if same == "always" else same.strip("`")


ROWS = list(rows_of_the_page())
of_library = {name: [row[1:] for row in ROWS if row[0] == name] for name in TITLES}
every_row = pytest.mark.parametrize(
    ("library", "theirs", "ours", "condition"), ROWS, ids=[row[1] for row in ROWS]
)


@pytest.fixture
def numbers(rng):
    """Random values of the variables of the page."""
    whole = lambda low, high: int(rng.numpy.integers(low, high))  # noqa: E731
    real = lambda low, high: float(rng.numpy.uniform(low, high))  # noqa: E731
    w, k = whole(2, 9), whole(2, 9)
    n = w + k + whole(5, 30)
    lr = real(0.2, 2.0)
    return {
        **{"w": w, "k": k, "n": n, "a": int(0.3 * n), "b": int(0.85 * n), "pi": math.pi},
        **{"lr": lr, "first": lr * real(0.01, 0.5), "end": lr * real(0.01, 0.5)},
        **{"gamma": real(0.6, 0.95), "power": real(0.5, 3.0)},
    }


def values_of(scheduler, steps):
    """torch's values; nan from where torch refuses to go on."""
    values = np.full(steps, np.nan)
    (rows,) = stepped(scheduler, steps, "lr")
    values[: len(rows)] = rows[:, 0]
    return values


def assert_same(schedule, values, condition, numbers, tolerance):
    """Equal where the page says so, and only there."""
    __tracebackhide__ = True
    steps = np.arange(len(values))
    same = np.array([condition is None or eval(condition, {**numbers, "step": t}) for t in steps])
    got = np.broadcast_to(schedule.values(steps), values.shape)
    close = np.isclose(got, values, rtol=tolerance, atol=tolerance * numbers["lr"])
    wrong = steps[same & ~close]
    assert not wrong.size, f"step {wrong[0]}: {got[wrong[0]]} is not {values[wrong[0]]}: {numbers}"
    assert same.all() or not close[~same].all(), f"the same beyond {condition} too"


def our_schedule(ours, numbers):
    names = {name: getattr(S, name) for name in S.__all__}
    return S.constant(1.0) * eval(ours, {**names, **numbers})


@every_row
def test_every_row_is_what_its_expression_gives(library, theirs, ours, condition, numbers):
    schedule, steps = our_schedule(ours, numbers), TIMES * 9 * numbers["n"]
    if library == "torch.optim.lr_scheduler":
        names, tolerance = vars(torch_lr), 1e-9
        scheduler = eval(theirs, {**names, **numbers, "opt": optimizer(numbers["lr"])})
        values = values_of(scheduler, steps)
    else:
        opt, tolerance = SimpleNamespace(lr=numbers["lr"]), 1e-12
        value = eval(theirs, {**vars(TITLES[library]), **numbers, "opt": opt})
        values = np.array([value(t) for t in range(steps)])
    assert_same(schedule, values, condition, numbers, tolerance)


def package(library):
    """The real module, or None where it is not installed."""
    if library not in MODULES or importlib.util.find_spec(library) is None:
        return None
    with warnings.catch_warnings():  # what other packages deprecate is not ours to mend
        warnings.simplefilter("ignore")
        return importlib.import_module(MODULES[library])


@pytest.mark.parametrize("library", MODULES)
def test_the_packages_themselves(library, numbers):
    """Where one is installed; the formulas above stand in for it everywhere else."""
    module = package(library)
    for theirs, ours, condition in of_library[library] if module else []:
        opt = optimizer(numbers["lr"], lr=numbers["lr"])
        made = eval(theirs, {**vars(module), **numbers, "opt": opt})
        steps = TIMES * numbers["n"]
        if library == "transformers":
            values, tolerance = values_of(made, steps), 1e-12
        elif library == "timm":
            values, tolerance = np.array([in_timm(made, t) for t in range(steps)]), 1e-12
        else:  # optax computes in float32
            values, tolerance = np.array([float(made(t)) for t in range(steps)]), 1e-5
        assert_same(our_schedule(ours, numbers), values, condition, numbers, tolerance)


def in_timm(scheduler, t):
    if t:
        scheduler.step(t)
    return in_groups(scheduler.optimizer)[0]


def public_names(library):
    """torch's from torch itself, the others' from their stand-ins."""
    if library == "torch.optim.lr_scheduler":
        return set(torch_lr.__all__) - {"LRScheduler", "ReduceLROnPlateau"}
    module = TITLES[library]
    functions = {name for name, value in vars(module).items() if inspect.isfunction(value)}
    return {f for f in functions if f[0] != "_" and vars(module)[f].__module__ == module.__name__}


@pytest.mark.parametrize("library", TITLES)
def test_every_name_has_a_row(library):
    rows = " ".join(theirs for theirs, _, _ in of_library[library])
    assert public_names(library) - set(re.findall(r"\w+(?=\()", rows)) == set()
    assert len(of_library[library]) >= 15


def test_the_examples_of_the_page_run():
    torch.manual_seed(0)
    result = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 10 and result.failed == 0


def test_a_wrong_row_would_be_found(numbers):
    """The check itself: one step off, the wrong end, a condition that hides too much."""
    linear = partial(S.linear, numbers["lr"], numbers["end"])
    n = numbers["n"]
    values = linear(n).values(range(3 * n))
    assert_same(linear(n), values, None, numbers, 1e-12)
    for schedule, condition in [
        (linear(n).shifted(1), None),
        (linear(n + 1), None),
        (linear(n), "step < n"),
    ]:
        with pytest.raises(AssertionError):
            assert_same(schedule, values, condition, numbers, 1e-12)
