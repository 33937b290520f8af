"""The optimizers of ``lib.optimizers`` in the tests of the step: the options to step with.

A test that has the fixture ``rule`` runs over all of them: ``lib.runs.start`` makes the optimizer
of the test's rule, and AdamW in the other tests.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from lib import optimizers
from lib.optimizers import Kind
from lrfused import schedules as S

Options = dict[str, Any]
One = Callable[..., Any]  # takes one of its arguments at random


@dataclass(frozen=True)
class StepRule:
    """An optimizer in the tests of the step.

    Attributes:
        kind: its class, torch's, and the options of both.
        random: options of a group at random.
        scheduled: its hyperparameters as schedules, by argument.
        single: options of its own, each with what it needs to act.
        largest: the update that reads, writes and computes the most.
        least: the one that does so the least, if kernels have a way of its own for it.
        decay: what its runs have beside the options of its kind, so that it decays.
    """

    kind: Kind
    random: Callable[[One], Options]
    scheduled: Options
    single: dict[str, Options]
    largest: Options = field(default_factory=dict)
    least: Options = field(default_factory=dict)
    decay: Options = field(default_factory=dict)

    @property
    def optimizer(self) -> type[Any]:
        return self.kind.cls

    @property
    def name(self) -> str:
        return str(self.optimizer.rule.name)

    @property
    def base(self) -> Options:
        """What its runs have unless they say otherwise: a state and a decay."""
        return {**self.kind.options, **self.decay}

    @property
    def torchs(self) -> type[torch.optim.Optimizer] | None:
        """torch's optimizer of the same formulas, if there is one."""
        theirs = self.kind.counterpart
        return theirs if theirs.__module__.startswith("torch.optim.") else None

    @property
    def counts(self) -> bool:
        """Its checkpoints hold the counts of updates."""
        return self.kind.counts

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the operands, in an optimizer's state."""
        return tuple(self.optimizer.rule.keys)


def one_of(rng) -> One:
    """Draws by a test's generator."""
    return lambda *choices: choices[rng.numpy.integers(len(choices))]


def _adamw(one: One) -> Options:
    return {
        "weight_decay_mode": one("lr", "independent", "lr_ratio"),
        "bias_correction": one("power", "product"),
        "amsgrad": one(True, False),
        "eps": one(1e-8, 1e-3, S.exponential(1e-4, 1e-8, 20)),
        "weight_decay": one(0.3, S.linear(0.3, 0.0, 30)),
        "betas": one((0.8, 0.95), (S.linear(0.95, 0.8, 9), S.linear(0.9, 0.999, 9))),
    }


def _sgd(one: One) -> Options:
    """Momentum as a number, none, as a schedule that is 0 at times."""
    nesterov = one(True, False)
    if nesterov:
        momentum, dampening = one(0.5, S.linear(0.5, 0.9, 9)), 0.0
    else:
        momentum = one(0.0, 0.9, S.select(S.less(S.step % 3, 1), 0.0, 0.8), S.linear(0.0, 0.9, 9))
        dampening = one(0.0, 0.3, -0.5, S.linear(0.5, 0.0, 12))
    return {
        "momentum": momentum,
        "dampening": dampening,
        "nesterov": nesterov,
        "weight_decay_mode": one("l2", "lr", "independent", "lr_ratio"),
        "weight_decay": one(0.0, 0.3, S.linear(0.3, 0.0, 30)),
    }


def _lion(one: One) -> Options:
    return {
        "weight_decay_mode": one("lr", "independent", "lr_ratio"),
        "weight_decay": one(0.3, S.linear(0.3, 0.0, 30)),
        "betas": one((0.8, 0.95), (0.0, 0.99), (S.linear(0.95, 0.8, 9), S.linear(0.9, 0.999, 9))),
    }


ADAMW = StepRule(
    optimizers.ADAMW,
    _adamw,
    scheduled={
        "weight_decay": S.linear(0.3, 0.0, 100),
        "betas": (S.cosine(0.95, 0.85, 60), 1 - 1 / (S.step + 2)),
        "eps": S.exponential(1e-6, 1e-9, 80),
    },
    single={
        "no decay, no momentum": {"weight_decay": 0.0, "betas": (0.0, 0.0)},
        "eps 0": {"eps": 0.0},
        "amsgrad": {"amsgrad": True},
        "product": {"bias_correction": "product", "betas": (S.linear(0.8, 0.95, 50), 0.99)},
    },
    largest={"amsgrad": True},
)
SGD = StepRule(
    optimizers.SGD,
    _sgd,
    scheduled={
        "weight_decay": S.linear(0.3, 0.0, 100),
        "momentum": S.cosine(0.95, 0.0, 60),
        "dampening": S.linear(1.0, 0.0, 30) - 0.5,
    },
    single={
        "no momentum": {"momentum": 0.0, "dampening": 0.0},
        "no dampening": {"dampening": 0.0},
        "nesterov": {"nesterov": True, "dampening": 0.0},
        "momentum that is 0 at times": {"momentum": S.select(S.less(S.step % 5, 2), 0.0, 0.9)},
        "decoupled decay": {"weight_decay_mode": "lr", "weight_decay": 0.1},
    },
    largest={"nesterov": True, "dampening": 0.0},
    least={"momentum": 0.0},
)
LION = StepRule(
    optimizers.LION,
    _lion,
    scheduled={
        "weight_decay": S.linear(0.3, 0.0, 100),
        "betas": (S.cosine(0.95, 0.85, 60), 1 - 1 / (S.step + 2)),
    },
    decay={"weight_decay": 0.1},
    single={"no decay, no momentum": {"weight_decay": 0.0, "betas": (0.0, 0.0)}},
)
RULES = {rule.name: rule for rule in (ADAMW, SGD, LION)}

_of_the_test = ADAMW


def of_the_test() -> StepRule:
    """The rule that the present test runs over."""
    return _of_the_test


@pytest.fixture(params=RULES)
def rule(request) -> Iterator[StepRule]:
    """Each optimizer."""
    with stepping_by(RULES[request.param]) as found:
        yield found


@contextmanager
def stepping_by(rule: StepRule) -> Iterator[StepRule]:
    """What is started in here is of this rule."""
    global _of_the_test
    _of_the_test = rule
    try:
        yield rule
    finally:
        _of_the_test = ADAMW
