"""The C++ backend: the table's pointers and the options, handed to ``lrfused._cpu``."""

import numpy as np
import torch

from lrfused import native
from lrfused.backends.description import changes, description
from lrfused.backends.work import Outcome, Place, Work


class CpuStep:
    """One table, ready to be stepped by the C++ kernels."""

    updates = True

    def __init__(self, work: Work, instruction_set: str = "auto"):
        assert native.cpu is not None
        self.instruction_set = instruction_set
        self.next_values = np.zeros_like(work.hyper.values)
        self.step = native.cpu.Step(*description(work))

    def __call__(self, work: Work) -> Outcome:
        """One step over the gradients in ``work.addresses``."""
        error, proceeded, step = self.step.run(
            work.addresses,
            work.hyper.values,
            work.hyper.is_override,
            self.next_values,
            work.grad_scale,
            work.found_inf,
            torch.get_num_threads(),
            self.instruction_set,
        )
        if proceeded:
            work.increment_versions()
        return Outcome(error, step, self.next_values)

    def update(self, work: Work, indices: list[int], sources: list[Place]) -> None:
        """Replace the rows of these tensors, and the programs of these hyperparameters."""
        self.step.update(*changes(work, indices, sources))
