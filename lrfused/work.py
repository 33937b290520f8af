"""Work: everything that one step reads and writes, as the backends see it."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lrfused.device_state import DeviceState
from lrfused.hyperparameters import Hyperparameters
from lrfused.norm import CHUNK
from lrfused.options import GroupOptions, Options, Slot
from lrfused.schedules import Schedule
from lrfused.table import Entry, Operand


@dataclass(eq=False)
class Work:
    """The table with its options (fixed), and what changes from step to step.

    ``gradients`` maps a parameter's place in the table to its gradient; ``grad_scale`` and
    ``found_inf`` are those of an outside GradScaler.
    """

    entries: list[Entry]
    groups: list[GroupOptions]
    options: Options
    state: DeviceState
    hyper: Hyperparameters
    sources: list[Schedule | None]  # of the hyperparameters, when the table was built
    inputs: list[tuple[Tensor, int]]  # tensors that they read, with their addresses then
    gradients: dict[int, Operand] = field(default_factory=dict)
    grad_scale: float = 1.0
    found_inf: bool = False
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, len(Slot))))

    @property
    def chunks(self) -> list[int]:
        """The number of chunks of each parameter."""
        counts = []
        for entry in self.entries:
            length = entry.unit or entry.p.flat.numel()
            units = entry.p.flat.numel() // entry.unit if entry.unit else 1
            counts.append(units * -(-length // CHUNK))
        return counts

    def hyperparameters(self, step: int) -> np.ndarray:
        """(groups, slots) in float64; remembered for this step."""
        self.values = self.hyper.evaluate(step)
        return self.values

    def max_grad_norm(self) -> float:
        """The threshold of the global clip: one for all groups."""
        return float(self.values[0, Slot.MAX_GRAD_NORM])
