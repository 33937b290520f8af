"""A hyperparameter that cannot be used, at the first step or in the middle of a run.

The step raises and changes nothing; with a usable value the run goes on as if nothing had been.
"""

from collections.abc import Callable

import pytest
import torch
from lib.optimizers import KINDS, Kind

import lrfused
from lrfused import schedules as S

from .helpers import accepting, assert_same_state, everything, needs_cpp, normal

NAN, INF = float("nan"), float("inf")
BACKENDS = ["reference", pytest.param("cpu", marks=needs_cpp)]
STEPS = 6
IN_SECOND = ("betas", "momentum", "dampening")  # what the second group has of these


class Training:
    """A run whose hyperparameters can be spoiled: inputs of schedules, a Tensor, host numbers."""

    def __init__(self, seed: int, kind: Kind, backend: str):
        self.generator = torch.Generator().manual_seed(seed)
        shapes = [(3, 4), (), (7,), (5, 2)]
        self.params = [accepting(normal(self.generator, s, torch.float32)) for s in shapes]
        names = ("lr", "decay", "bound", "agc", "norm", *IN_SECOND, "eps")
        self.inputs = {name: torch.tensor(0.1, dtype=torch.float64) for name in names}
        of = {name: S.input(value, name) for name, value in self.inputs.items()}
        self.tensor = torch.tensor(0.02)
        first = {"eps": of["eps"]} if "eps" in kind.hyperparameters else {}
        second = {name: of[name] for name in IN_SECOND if name in kind.hyperparameters}
        if "betas" in second:
            second["betas"] = (of["betas"], 0.99)
        self.opt = kind.ours(
            [
                {"params": self.params[:1], "lr": of["lr"] * S.linear(1.0, 0.1, 9), **first},
                {"params": self.params[1:2], "lr": self.tensor, **second},
                {
                    "params": self.params[2:3],
                    "weight_decay": of["decay"],
                    "clip_value": of["bound"],
                },
                {"params": self.params[3:], "agc": of["agc"]},
            ],
            max_grad_norm=of["norm"],
            loss_scale=lrfused.LossScale(init=8.0, growth_interval=2),
            backend=backend,
        )

    def run(self, steps: int) -> None:
        """Steps with random gradients."""
        for _ in range(steps):
            self.give_gradients()
            self.opt.step()

    def give_gradients(self) -> None:
        """Fresh ones."""
        self.opt.scale(torch.zeros(()))
        for p in self.params:
            p.grad = normal(self.generator, tuple(p.shape), p.dtype)

    def now(self) -> dict:
        """Everything that a step may change."""
        return everything(self.params, self.opt)


# A spoiler makes one value unusable and returns what brings the usable one back.
Spoiler = Callable[[Training], Callable[[], object]]


def of_input(name: str, value: float) -> Spoiler:
    """What a schedule reads."""

    def spoil(training: Training) -> Callable[[], object]:
        tensor = training.inputs[name]
        good = float(tensor)
        tensor.fill_(value)
        return lambda: tensor.fill_(good)

    return spoil


def of_tensor(value: float) -> Spoiler:
    """The Tensor that is the lr of a group."""

    def spoil(training: Training) -> Callable[[], object]:
        good = float(training.tensor)
        training.tensor.fill_(value)
        return lambda: training.tensor.fill_(good)

    return spoil


def of_group(g: int, name: str, value: object) -> Spoiler:
    """What the caller writes to ``param_groups``."""

    def spoil(training: Training) -> Callable[[], object]:
        group = training.opt.param_groups[g]
        good, group[name] = group[name], value
        return lambda: group.update({name: good})

    return spoil


SPOILERS = {
    **{f"{name} {x}": of_input(name, x) for name in ("lr", "decay") for x in (NAN, INF)},
    **{f"{name} {x}": of_input(name, x) for name in ("bound", "agc", "norm") for x in (NAN, -1.0)},
    **{f"Tensor lr {x}": of_tensor(x) for x in (NAN, -INF)},
    **{f"host lr {x}": of_group(0, "lr", x) for x in (NAN, INF, 1e300)},
    "host decay that is no number": of_group(1, "weight_decay", "x"),
    "host lr that is None": of_group(3, "lr", None),
    "host lr that is too large": of_group(3, "lr", 10**400),
    "host lr that is an integer tensor of two": of_group(2, "lr", torch.tensor([1, 2])),
}
# Of hyperparameters that not every optimizer has.
OWN_SPOILERS = {
    "eps": {f"eps {x}": of_input("eps", x) for x in (NAN, INF)},
    "betas": {
        **{f"beta {x}": of_input("betas", x) for x in (NAN, 1.0, -0.1)},
        **{f"host betas {x}": of_group(3, "betas", x) for x in ((NAN, 0.9), (0.9, 1.0))},
        "host betas that are one": of_group(2, "betas", (0.9,)),
    },
    "momentum": {
        **{f"momentum {x}": of_input("momentum", x) for x in (NAN, -INF)},
        **{f"host momentum {x}": of_group(3, "momentum", x) for x in (NAN, INF, "x", None)},
    },
    "dampening": {
        **{f"dampening {x}": of_input("dampening", x) for x in (NAN, INF)},
        **{f"host dampening {x}": of_group(3, "dampening", x) for x in (NAN, "x")},
    },
}


def spoilers_of(kind: Kind) -> dict[str, Spoiler]:
    """All that can be spoiled."""
    own = [found for name, found in OWN_SPOILERS.items() if name in kind.hyperparameters]
    return {name: spoiler for found in (SPOILERS, *own) for name, spoiler in found.items()}


@pytest.mark.filterwarnings("ignore:param_groups.* overrides its schedule")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.name}-{name}")
        for kind in KINDS
        for name in spoilers_of(kind)
    ],
)
def test_an_unusable_hyperparameter_is_refused_and_changes_nothing(rng, kind, backend, name):
    """Refused twice at the first step and twice after three; the run is as if it never happened."""
    seed = int(rng.numpy.integers(2**31))
    training, undisturbed = Training(seed, kind, backend), Training(seed, kind, backend)
    for steps in (3, STEPS - 3):
        before = training.now()
        repair = spoilers_of(kind)[name](training)
        training.give_gradients()
        for _ in range(2):
            with pytest.raises((RuntimeError, ValueError, TypeError, OverflowError)):
                training.opt.step()
        repair()
        assert_nothing_changed(training.now(), before)
        training.opt.step()
        training.run(steps - 1)
        undisturbed.run(steps)
        assert_same_state(training.now(), undisturbed.now())


def assert_nothing_changed(now: dict, before: dict) -> None:
    """Apart from the gradients; moments and counts of a first step may be there, as zeros."""

    def state(tensors: dict) -> dict:
        return {k: v for k, v in tensors.items() if not k.startswith("grad") and not is_new(k, v)}

    def is_new(name: str, value: torch.Tensor) -> bool:
        return name not in before["tensors"] and not value.any()

    assert_same_state(
        {**now, "tensors": state(now["tensors"])}, {**before, "tensors": state(before["tensors"])}
    )
