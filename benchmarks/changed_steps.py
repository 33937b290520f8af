"""Usual steps beside steps before which something small has changed, over the same tensors."""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from change_sides import REFERENCE, SETTINGS, adamw, deviation, parameters
from device import Cpu

DEVICE = Cpu()
USUAL, CHANGED = "usual", "changed"
# Untimed steps warm the caches, and do what the last change may have left to do; usual steps for
# every one with a change.
UNTIMED, USUAL_STEPS = 3, 3
STRIDE = 41  # shares no factor with any row's number of tensors
ALWAYS, FIRST = 200, 2  # tensors with a gradient at every step, and with their first at one


class Scene:
    """An optimizer over many tensors, and what is done to them before a step."""

    size = 64

    def __init__(self, side: str, tensors: int):
        self.params = parameters(side, tensors, self.size)
        self.optimizer = adamw(side, self.params, SETTINGS.lr)
        self.changes = 0

    def step(self, changed: bool) -> float:
        """Seconds of the step alone: what is done before it is not the optimizer's work."""
        self.prepare(changed)
        self.changes += changed
        return DEVICE.seconds(self.optimizer.step)

    def prepare(self, changed: bool) -> None:
        """Before each step."""
        raise NotImplementedError


class FirstGradients(Scene):
    """As of a mixture of experts: few have gradients, and two others at each step their first."""

    size = 8

    def __init__(self, side: str, tensors: int):
        super().__init__(side, tensors)
        self.gradients = [param.grad for param in self.params]

    def prepare(self, changed: bool) -> None:
        for param in self.params:
            param.grad = None
        places = list(range(ALWAYS))
        if changed:
            first = ALWAYS + FIRST * self.changes
            if first + FIRST > len(self.params):
                raise ValueError(f"rounds: must be fewer, all {first} tensors have had a gradient")
            places += range(first, first + FIRST)
        for place in places:
            self.params[place].grad = self.gradients[place].clone()


class Edited(Scene):
    """All have gradients; ``edit`` replaces one thing, in another tensor or with another value."""

    def __init__(self, edit: "Edit", side: str, tensors: int):
        super().__init__(side, tensors)
        self.edit = edit

    def prepare(self, changed: bool) -> None:
        if changed:
            self.edit(self, self.changes)


Edit = Callable[[Edited, int], None]


def lr_tensor(scene: Edited, index: int) -> None:
    scene.optimizer.param_groups[0]["lr"] = torch.tensor(_lr(index))


def lr_number(scene: Edited, index: int) -> None:
    scene.optimizer.param_groups[0]["lr"] = _lr(index)


def moment(scene: Edited, index: int) -> None:
    """Half of it, so that one who keeps the old one is found out."""
    state = scene.optimizer.state[scene.params[place_of(scene, index)]]
    state["exp_avg"] = state["exp_avg"] * 0.5


def data(scene: Edited, index: int) -> None:
    """As above, by its negative: a factor above 1 would let earlier roundings grow."""
    param = scene.params[place_of(scene, index)]
    param.data = -param.data


def _lr(index: int) -> float:
    return SETTINGS.lr * (1.0 + index % 7 / 10)


def place_of(scene: Edited, index: int) -> int:
    """Which tensor a change is made to: all over the list, and none twice before all others."""
    return STRIDE * index % len(scene.params)


class ChangedSteps:
    """A turn: steps as usual, then fewer, which may be slow, with a change before each of them."""

    def __init__(self, make: Callable[[str, int], Scene], side: str, tensors: int, steps: int):
        self._make, self._tensors, self._steps = make, tensors, steps
        self._scene = make(side, tensors)
        self._log: list[bool] = []

    def turn(self) -> dict[str, float]:
        """Seconds of a step of each kind."""
        for _ in range(UNTIMED):
            self._take(False)
        return {
            USUAL: median(self._take(False) for _ in range(USUAL_STEPS * self._steps)),
            CHANGED: median(self._take(True) for _ in range(self._steps)),
        }

    def check(self) -> float:
        """Deviation from the same steps and changes in float64; all of them if they are wrong."""
        expected: Any = self._make(REFERENCE, self._tensors)
        for changed in self._log:
            expected.step(changed)
        return deviation(self._scene.optimizer, expected.optimizer, len(self._log))

    def _take(self, changed: bool) -> float:
        self._log.append(changed)
        return self._scene.step(changed)
