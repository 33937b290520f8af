"""The Triton backend: one table, stepped by two launches at most."""

from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrfused.cpu import CODES, increment_versions
from lrfused.device_state import Field
from lrfused.options import Error, Slot
from lrfused.triton import layout, shapes
from lrfused.triton import words as w
from lrfused.triton.apply import apply_kernel
from lrfused.triton.launch import launch
from lrfused.triton.measure import measure_kernel
from lrfused.triton.plan import plan_kernel
from lrfused.triton.uploads import Upload, is_capturing
from lrfused.work import Outcome, Work

UNKNOWN = -1  # the step, where asking for it would mean to wait for the device

Kind = tuple[int, ...]  # words.KIND_P and what follows it


class TritonStep:
    """One table, ready to be stepped.

    ``captured`` are the gradient tables of CUDA graphs, which read this object's memory: it has
    to live as long as they do.
    """

    def __init__(self, work: Work):
        self.device = work.state.words.device
        self.captured: list[Tensor] = []
        programs = shapes.arrange(work.hyper.programs)
        self._shapes, self._flags = programs.flat, layout.flags_of(work)
        self._table = layout.make_table(work, programs)
        self._halves = self._table.halves.numel() // int(w.HALF_SIZE)
        self._stretches = self._table.stretches.numel() // int(w.PART_SIZE)
        self._state = layout.state_of(work)
        self._measured = layout.make_measured(sum(work.chunks), self.device)
        self._decided = layout.make_decided(work, self._table.units.numel() // int(w.UNIT_SIZE))
        self._kinds: dict[Kind, int] = {}
        # Which of them a tensor is of, for each dtype of its gradient; -1: not seen yet.
        self._kind_of = np.full((len(work.entries), len(CODES)), -1, dtype=np.int64)
        self._gradients = Upload(len(work.entries) * 2, torch.int64, self.device)
        numbers = int(w.VALUES) + 2 * len(work.groups) * len(Slot)
        self._numbers = Upload(numbers, torch.float64, self.device)
        self._no_scale = torch.ones(1, dtype=torch.float32, device=self.device)
        self._no_inf = torch.zeros(1, dtype=torch.float32, device=self.device)
        self._params = [entry.param for entry in work.entries]
        self._has_version = np.array([not param.is_inference() for param in self._params])

    def __call__(self, work: Work) -> Outcome:
        """One step over the gradients in ``work.addresses``; nothing waits for the device.

        Raises:
            RuntimeError: a kernel is missing while a CUDA graph is captured.
        """
        call = self._call(work)
        kinds = tuple(word for kind in self._kinds for word in kind)
        common = (self._table, call, self._state, self._measured, self._decided)
        constants: tuple[Any, ...] = (self._shapes, self._flags)
        if self._flags & int(w.MEASURES) and self._halves:
            constants = (kinds, *constants)
            launch(measure_kernel, self._halves, self.device, common, *constants)
        else:
            launch(plan_kernel, 1, self.device, common, *constants)
        if self._stretches:
            arguments, constants = (self._table, call, self._decided), (kinds, self._flags)
            launch(apply_kernel, self._stretches, self.device, arguments, *constants)
        return self._outcome(work)

    def _call(self, work: Work) -> w.Call:
        """What the host knows of this step, on the device."""
        scale, scale_tensor = _outside(work.grad_scale, 1.0, self._no_scale)
        found, found_tensor = _outside(work.found_inf, 0.0, self._no_inf)
        values, given = work.hyper.values, work.hyper.given
        numbers = np.concatenate(([scale, found], values.reshape(-1), given.reshape(-1)))
        addresses = self._addresses(work).reshape(-1)
        if is_capturing(self.device):
            gradients = self._gradients.fixed(addresses)
            self.captured.append(gradients)
        else:
            gradients = self._gradients.shared(addresses)
        return w.Call(gradients, self._numbers.shared(numbers), scale_tensor, found_tensor)

    def _addresses(self, work: Work) -> NDArray[np.int64]:
        """Where each gradient is, and of what kind its tensor is; kinds are listed as they come."""
        dtypes = work.addresses[:, 1]
        present = np.flatnonzero(dtypes >= 0)
        kinds = self._kind_of[present, dtypes[present]]
        for index in present[kinds < 0].tolist():
            kind = _kind(work, index)
            number = self._kinds.setdefault(kind, len(self._kinds))
            self._kind_of[index, dtypes[index]] = number
        addresses = work.addresses.copy()
        addresses[present, 1] = self._kind_of[present, dtypes[present]]
        return addresses

    def _outcome(self, work: Work) -> Outcome:
        """On a CPU, what was decided; on a device nobody knows yet."""
        words = work.state.words
        known = self.device.type == "cpu"
        if not known or self._decided.words[int(w.PROCEED)]:
            # Autograd has to know that saved parameters are no longer what they were.
            moved = self._has_version & (work.addresses[:, 1] >= 0)
            increment_versions(list(compress(self._params, moved.tolist())))
        if not known:
            return Outcome(Error.NONE, UNKNOWN)
        return Outcome(int(words[Field.ERROR]), int(words[Field.STEP]))


def _outside(value: Any, neutral: float, tensor: Tensor) -> tuple[float, Tensor]:
    """What an outside GradScaler says: a number and a tensor, one of which changes nothing."""
    if isinstance(value, Tensor):
        return neutral, value.detach().reshape(1).to(tensor.device, torch.float32)
    return float(value), tensor


def _kind(work: Work, index: int) -> Kind:
    """For what a tensor needs kernels to be compiled."""
    entry = work.entries[index]
    group = work.groups[entry.group]
    assert entry.m is not None and entry.v is not None
    p, m, v = (CODES[operand.flat.dtype] for operand in (entry.p, entry.m, entry.v))
    x = -1
    if group.amsgrad:
        assert entry.x is not None
        x = CODES[entry.x.flat.dtype]
    return (p, int(work.addresses[index, 1]), m, v, x, int(bool(group.agc)), int(group.value_clip))
