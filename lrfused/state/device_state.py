"""What an optimizer remembers beside the moments: counters, loss scale, metrics.

One int64 tensor of words on the device (floating-point fields are float64 bit patterns), so
that everything is read at once; every backend reads and writes the same memory.
"""

from enum import IntEnum

import numpy as np
import torch

from lrfused.memory.normal_tensors import normal_tensors
from lrfused.rules import UpdateRule
from lrfused.settings.loss_scale import LossScale
from lrfused.settings.options import Error
from lrfused.settings.slots import Slot
from lrfused.state.step_counts import Counts


class Field(IntEnum):
    """The words, integers first; csrc/core/state.h has the same numbers."""

    STEP = 0
    SKIPPED_STEPS = 1
    CONSECUTIVE_SKIPS = 2
    CLIPPED_STEPS = 3
    GROWTH_TRACKER = 4
    HYSTERESIS_TRACKER = 5
    ERROR = 6
    ERROR_PLACE = 7
    ERROR_SLOT = 8
    ERROR_STEP = 9
    ERROR_VALUE = 10  # from here on float64
    GRAD_NORM = 11
    CLIP_COEFFICIENT = 12
    LARGEST_GRADIENT = 13
    LOSS_SCALE = 14


FIRST_FLOAT = Field.ERROR_VALUE
PERSISTENT = (
    Field.STEP,
    Field.SKIPPED_STEPS,
    Field.CONSECUTIVE_SKIPS,
    Field.CLIPPED_STEPS,
    Field.GROWTH_TRACKER,
    Field.HYSTERESIS_TRACKER,
)


class DeviceState:
    """Counters and metrics of one optimizer, and the counts of its parameters.

    ``loss_scale`` is the float32 scale that multiplies the loss. ``version`` rises whenever other
    memory takes the place of what there was: whoever has its addresses has to take the new ones.
    """

    @normal_tensors()
    def __init__(
        self, rule: UpdateRule, policy: LossScale | None, groups: int, device: torch.device
    ):
        self.version = 0
        self.words = torch.zeros(len(Field) + groups * len(Slot), dtype=torch.int64, device=device)
        self.loss_scale = torch.tensor(
            [policy.init if policy else 1.0], dtype=torch.float32, device=device
        )
        if policy:
            self.words[Field.HYSTERESIS_TRACKER] = policy.hysteresis
        self.floats[Field.CLIP_COEFFICIENT] = 1.0
        self.floats[Field.LOSS_SCALE] = self.loss_scale[0]
        self.tensors = Counts(rule, [], [], device)

    def set_groups(self, groups: int) -> None:
        """Room for the hyperparameters of so many groups; the same memory if there is already."""
        if self.words.numel() == len(Field) + groups * len(Slot):
            return
        words = self.words.new_zeros(len(Field) + groups * len(Slot))
        words[: len(Field)] = self.words[: len(Field)]
        self.version += 1  # first: an interrupt may come in between
        self.words = words

    @property
    def step(self) -> int:
        """Completed, non-skipped steps; waits for the device."""
        return int(self.words[Field.STEP])

    def set_step(self, step: int) -> None:
        """Some count is ahead of the schedules' step, or the caller says where it is."""
        self.words[Field.STEP] = step

    def replace_counts(self, counts: Counts) -> None:
        """Counts of other parameters; nothing happens if they are those that there are."""
        if counts is not self.tensors:
            self.version += 1
            self.tensors = counts

    def set_counters(
        self, policy: LossScale | None, counters: dict[Field, float], largest_count: int
    ) -> None:
        """Loaded counters; where they are missing or behind the counts, the largest count leads.

        A constant scale stays; of a dynamic one the policy's first is taken where none was stored.
        """
        stored_scale = counters.get(Field.LOSS_SCALE, 0.0)
        values = {field: int(counters.get(field, 0)) for field in PERSISTENT}
        values[Field.STEP] = max(values[Field.STEP], largest_count)
        if policy is None or stored_scale == 0.0:
            values[Field.GROWTH_TRACKER] = 0
            values[Field.HYSTERESIS_TRACKER] = policy.hysteresis if policy else 0
        for field, value in values.items():
            self.words[field] = value
        self.words[Field.ERROR] = Error.NONE
        scale = policy.init if policy else 1.0
        if policy and policy.dynamic and stored_scale:
            scale = min(max(stored_scale, policy.minimum), policy.maximum)
        self.loss_scale[0] = scale
        self.floats[Field.LOSS_SCALE] = float(self.loss_scale[0])

    @normal_tensors()
    def move(self, device: torch.device) -> None:
        """To another device: the parameters went there, say, after only something was read."""
        self.version += 1
        self.words, self.loss_scale = self.words.to(device), self.loss_scale.to(device)
        old = self.tensors
        self.tensors = Counts(old.rule, old.params, old.carries, device)
        self.tensors.counts.copy_(old.counts)
        self.tensors.steps.copy_(old.steps)
        self.tensors.carried.copy_(old.carried)

    @property
    def floats(self) -> torch.Tensor:
        """The words seen as float64."""
        return self.words.view(torch.float64)

    def read(self) -> "Reading":
        """Everything at once: one copy to the host, which waits for the device."""
        return Reading(self.words.cpu().numpy().copy())

    def clear_error(self) -> None:
        """The host has seen it; until now plan kept it, whatever came after."""
        self.words[Field.ERROR] = Error.NONE


class Reading:
    """The words on the host."""

    def __init__(self, words: np.ndarray):
        self._words = words

    def __getitem__(self, field: Field) -> int | float:
        if field >= FIRST_FLOAT:
            return float(self._words.view(np.float64)[field])
        return int(self._words[field])

    @property
    def hyperparameters(self) -> np.ndarray:
        """The values that the last step used: (groups, slots)."""
        return self._words.view(np.float64)[len(Field) :].reshape(-1, len(Slot))
