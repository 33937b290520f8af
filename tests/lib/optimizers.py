"""The kinds of optimizers that tests run over; a new optimizer is one more entry of ``KINDS``."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

import lrfused
from lib.plain_lion import PlainLion
from lrfused import schedules


@dataclass(frozen=True, eq=False)
class Kind:
    """An optimizer of ours, and the one that it is compared with.

    ``options`` are given to both, unless a test says otherwise; ``moments`` are the keys of the
    tensors that their state has with these. ``sizes`` are, for all tensors that it may have, what
    is added up in them: differences are relative to the element itself (0.0) or to that size, where
    large terms may cancel. ``numbers`` are other hyperparameters than those, ``scheduled`` all that
    may be schedules, except for lr. ``counts`` says whether the state shows the count of updates,
    ``own`` what it shows that torch has not. With the options ``widest`` the state has all tensors
    that it may have, with ``carrying`` all numbers that go from update to update. With ``fused``
    torch's computes as ours does (its fused SGD is wrong in 16 bits, and after a skipped first
    step).
    """

    name: str
    cls: type[lrfused.FusedOptimizer]
    counterpart: type[Optimizer]
    numbers: Mapping[str, Any]
    scheduled: Mapping[str, Any]
    moments: tuple[str, ...]
    sizes: Mapping[str, float]
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: bool = False
    own: frozenset[str] = frozenset()
    widest: Mapping[str, Any] = field(default_factory=dict)
    carrying: Mapping[str, Any] = field(default_factory=dict)
    fused: Mapping[str, Any] = field(default_factory=lambda: {"fused": True})
    bound: float = 1e-6  # of float32; of float64 a millionth of it

    def ours(self, params: Iterable[Any], **options: Any) -> lrfused.FusedOptimizer:
        """One of ours."""
        return self.cls(params, **{**self.options, **options})

    def theirs(self, params: Iterable[Any], **options: Any) -> Optimizer:
        """The one that it is compared with."""
        return self.counterpart(params, **{**self.options, **options})

    @property
    def has_state(self) -> bool:
        """A step leaves something in ``state``."""
        return bool(self.moments)

    @property
    def keys(self) -> set[str]:
        """Of the state of a parameter."""
        shown = self.own if self.has_state else ()
        return {*self.moments, *shown, *(("step",) if self.counts else ())}

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Their keys in a group."""
        return ("lr", *self.scheduled)

    def assert_counts(self, opt: Optimizer, counts: Iterable[float]) -> None:
        """The counts of updates that the states show, in their order, if this kind shows them."""
        shown = [float(state["step"]) for state in opt.state.values() if "step" in state]
        assert shown == (list(counts) if self.counts else [])


def falling(start: float, end: float) -> schedules.Schedule:
    """A schedule for a hyperparameter."""
    return schedules.linear(start, end, 20)


ADAMW = Kind(
    "adamw",
    lrfused.AdamW,
    torch.optim.AdamW,
    numbers={"betas": (0.6, 0.7), "eps": 1e-3, "weight_decay": 0.3},
    scheduled={
        "betas": (falling(0.8, 0.9), falling(0.9, 0.999)),
        "eps": schedules.exponential(1e-4, 1e-8, 20),
        "weight_decay": falling(0.1, 0.0),
    },
    moments=("exp_avg", "exp_avg_sq"),
    sizes={"exp_avg": 1.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0},
    counts=True,
    widest={"amsgrad": True},
    carrying={"bias_correction": "product"},
)
SGD = Kind(
    "sgd",
    lrfused.SGD,
    torch.optim.SGD,
    options={"momentum": 0.9, "dampening": 0.25, "weight_decay": 0.01},
    numbers={"momentum": 0.7, "dampening": 0.3, "weight_decay": 0.2},
    scheduled={
        "momentum": falling(0.8, 0.9),
        "dampening": falling(0.5, 0.1),
        "weight_decay": falling(0.1, 0.0),
    },
    moments=("momentum_buffer",),
    sizes={"momentum_buffer": 4.0},
    own=frozenset({"lrfused_buffer_written"}),
    fused={},
    bound=4e-6,  # its updates are large, and each of 100 rounds the parameter
)
SGD_WITHOUT_MOMENTUM = Kind(
    "sgd without momentum",
    lrfused.SGD,
    torch.optim.SGD,
    options={"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.01},
    numbers={"weight_decay": 0.3},
    scheduled={"weight_decay": falling(0.1, 0.0)},
    moments=(),
    sizes={"momentum_buffer": 4.0},
    own=frozenset({"lrfused_buffer_written"}),
    fused={},
)
LION = Kind(
    "lion",
    lrfused.Lion,
    PlainLion,
    numbers={"betas": (0.6, 0.7), "weight_decay": 0.3},
    scheduled={
        "betas": (falling(0.8, 0.9), falling(0.9, 0.99)),
        "weight_decay": falling(0.1, 0.0),
    },
    moments=("exp_avg",),
    sizes={"exp_avg": 1.0},
    fused={},
    bound=4e-6,
)

KINDS = (ADAMW, SGD, SGD_WITHOUT_MOMENTUM, LION)
CLASSES = tuple({kind.cls: kind for kind in reversed(KINDS)}.values())  # one of each
FIRST = ADAMW


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of optimizer."""
    return request.param


def those(condition: Callable[[Kind], bool]) -> pytest.MarkDecorator:
    """Over these kinds only."""
    return pytest.mark.parametrize("kind", [*filter(condition, KINDS)], ids=lambda kind: kind.name)


with_state = those(lambda kind: kind.has_state)
that_counts = those(lambda kind: kind.counts)
without_counts = those(lambda kind: not kind.counts)
every_moment = pytest.mark.parametrize(
    ("kind", "key"),
    [
        pytest.param(kind, key, id=f"{kind.name}-{key}")
        for kind in KINDS
        if kind.has_state
        for key in kind.sizes
    ],
)
with_betas = those(lambda kind: "betas" in kind.hyperparameters)


def named(name: str) -> Kind:
    """The one of this name; for other processes, to which no kind can be sent."""
    return next(kind for kind in KINDS if kind.name == name)


def kind_of(opt: Optimizer) -> Kind:
    """The one of its class, ours or of the other side."""
    return next(kind for kind in CLASSES if isinstance(opt, (kind.cls, kind.counterpart)))
