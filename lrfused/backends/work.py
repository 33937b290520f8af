"""Work: everything that one step reads and writes, as the backends see it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrfused.backends.rows import Column, Rows, rows_of
from lrfused.groups.matrix import Hyperparameters
from lrfused.memory.operands import Entry, Operand
from lrfused.memory.pieces import Cuts, cuts
from lrfused.numerics.norm import CHUNK
from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.settings.cells import Settings
from lrfused.settings.options import Error, GroupOptions, Options
from lrfused.settings.slots import Slot
from lrfused.state.device_state import DeviceState


class Outcome(NamedTuple):
    """What the host knows after a step: an error code, the counter, perhaps the values there.

    Of a GPU it knows nothing before the GPU has come that far: that is ``UNKNOWN``.
    """

    error: int
    step: int | None
    values: np.ndarray | None = None


UNKNOWN = Outcome(Error.NONE, None)

Watched = list[tuple[Tensor, int]]
Place = tuple[int, Slot]  # of a hyperparameter: its group and slot

# What a GPU backend is asked to do of a step; as csrc/cuda/table.h has it.
MEASURE, PLAN, APPLY, WHOLE_STEP = 1, 2, 4, 7


@dataclass(eq=False)
class Work:
    """The table with its options (fixed), and what changes from step to step.

    Attributes:
        tensors: what kernels know of the entries, as rows of numbers (rows.py).
        addresses: of the gradients: rows of (address, dtype's code; -1: no gradient), filled by
            the guard.
        gradients: those that are not in ``addresses``, by the parameter's place in the table.
        params_with_grad: the parameters that move.
        grad_scale, found_inf: of an outside GradScaler; tensors where the backend reads them on
            the device.
        mirrors: what stands for the schedules' inputs, by id, on a device without them.
    """

    rule: UpdateRule
    entries: list[Entry]
    groups: list[GroupOptions]
    options: Options
    state: DeviceState
    hyper: Hyperparameters
    watched: Watched  # other tensors that it uses, with their addresses then
    gradients: dict[int, Operand] = field(default_factory=dict)
    grad_scale: Any = 1.0
    found_inf: Any = False
    addresses: np.ndarray = field(init=False)
    params_with_grad: list[Tensor] = field(default_factory=list)
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, len(Slot))))
    mirrors: dict[int, Tensor] = field(default_factory=dict)

    tensors: Rows = field(init=False)
    rows: list[Settings] = field(init=False)  # of the groups, when the table was built
    sources: list[Schedule | None] = field(init=False)  # and of their hyperparameters

    def __post_init__(self) -> None:
        self.tensors = rows_of(self.rule, self.entries)
        self.rows, self.sources = self.hyper.rows, self.hyper.sources
        self.addresses = np.full((len(self.entries), 2), -1, dtype=np.int64)

    def replace(self, indices: list[int], entries: list[Entry]) -> None:
        """Put other entries at these indices."""
        for index, entry in zip(indices, entries, strict=True):
            self.entries[index] = entry
        self.tensors[indices] = rows_of(self.rule, entries)

    def replace_sources(self, watched: Watched) -> None:
        """Take the present sources of hyperparameters, and what they read."""
        self.sources, self.watched = self.hyper.sources, watched

    def cuts(self, size: int) -> Cuts:
        """The entries, cut into pieces of at most ``size`` elements."""
        return cuts(self.tensors[:, Column.COUNT], self.tensors[:, Column.UNIT], size)

    @property
    def chunks(self) -> np.ndarray:
        """The number of chunks of each parameter."""
        return self.cuts(CHUNK).pieces

    @property
    def memory(self) -> list[Tensor]:
        """What every step uses besides the caller's tensors."""
        mirrors = [tensor for tensor in self.mirrors.values() if not tensor.is_meta]
        masks = [entry.mask for entry in self.entries if entry.mask is not None]
        return [*self.state_tensors.values(), *mirrors, *masks]

    @property
    def state_tensors(self) -> dict[str, Tensor]:
        """What kernels write besides parameters and operands, under the names of csrc/core."""
        state, counts = self.state, self.state.tensors
        return {
            "words": state.words,
            "loss_scale": state.loss_scale,
            "counts": counts.counts,
            "steps": counts.steps,
            "carried": counts.carried,
        }

    def increment_versions(self) -> None:
        """Tell autograd that saved parameters are no longer what they were."""
        torch.autograd.graph.increment_version(
            self.params_with_grad
        )  # inference tensors have no version

    def source(self, group: int, slot: Slot) -> Schedule | None:
        """The schedule of a hyperparameter; None for a number."""
        return self.sources[group * len(Slot) + slot]

    def input(self, node: Schedule) -> Tensor:
        """The tensor that the kernels read for a schedule's input."""
        tensor: Tensor = node._payload[0]
        return self.mirrors.get(id(tensor), tensor)

    def hyperparameters(self, step: int) -> np.ndarray:
        """(groups, slots) in float64; remembered for this step."""
        self.values = self.hyper.evaluate(step)
        return self.values

    def max_grad_norm(self) -> float:
        """The threshold of the global clip: one for all groups."""
        return float(self.values[0, Slot.MAX_GRAD_NORM])
