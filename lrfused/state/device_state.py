"""DeviceState: an optimizer's state besides the moments: counters, loss scale, metrics.

One int64 tensor of state words on the device (floating-point fields are float64 bit patterns), so
that one copy reads everything; all backends read and write the same memory.
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
    """Indices of the state words, integers first; the numbers must match csrc/core/state.h."""

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
    TINY_GRADIENTS = 14
    LOSS_SCALE = 15


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

    ``loss_scale`` is the float32 scale that multiplies the loss. ``version`` rises whenever memory
    is replaced, which invalidates bound addresses.
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
        """Resize for the hyperparameters of ``groups`` groups; keeps the memory if it fits."""
        if self.words.numel() == len(Field) + groups * len(Slot):
            return
        words = self.words.new_zeros(len(Field) + groups * len(Slot))
        words[: len(Field)] = self.words[: len(Field)]
        self.version += 1  # first, in case of an interrupt in between
        self.words = words

    @property
    def step(self) -> int:
        """Completed, non-skipped steps; waits for the device."""
        return int(self.words[Field.STEP])

    def set_step(self, step: int) -> None:
        """Set the schedules' step, when a count is ahead of it or the caller asks."""
        self.words[Field.STEP] = step

    def replace_counts(self, counts: Counts) -> None:
        """Use other counts, for other parameters; a no-op for the present ones."""
        if counts is not self.tensors:
            self.version += 1
            self.tensors = counts

    def set_counters(
        self, policy: LossScale | None, counters: dict[Field, float], largest_count: int
    ) -> None:
        """Set loaded counters; the step is at least the largest count.

        A constant scale stays as it is; a dynamic one starts at the policy's ``init`` if none was
        stored.
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
        """Move to another device, for parameters that moved after the state was created."""
        self.version += 1
        self.words, self.loss_scale = self.words.to(device), self.loss_scale.to(device)
        old = self.tensors
        self.tensors = Counts(old.rule, old.params, old.carries, device)
        self.tensors.counts.copy_(old.counts)
        self.tensors.steps.copy_(old.steps)
        self.tensors.carried.copy_(old.carried)

    @property
    def floats(self) -> torch.Tensor:
        """The state words viewed as float64."""
        return self.words.view(torch.float64)

    def read(self) -> "Reading":
        """Copy all state words to the host at once; waits for the device."""
        return Reading(self.words.cpu().numpy().copy())

    def clear_error(self) -> None:
        """Clear the latched error, once the host has seen it; plan keeps the first until then."""
        self.words[Field.ERROR] = Error.NONE


class Reading:
    """The state words on the host."""

    def __init__(self, words: np.ndarray):
        self._words = words

    def __getitem__(self, field: Field) -> int | float:
        if field >= FIRST_FLOAT:
            return float(self._words.view(np.float64)[field])
        return int(self._words[field])

    @property
    def hyperparameters(self) -> np.ndarray:
        """The values that the last step used, of shape (groups, slots)."""
        return self._words.view(np.float64)[len(Field) :].reshape(-1, len(Slot))
