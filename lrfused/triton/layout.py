"""The table on the device, fixed once it is built, and room for what kernels hand to each other."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrfused.elementary import TWO_OVER_PI
from lrfused.norm import CHUNK
from lrfused.options import GroupOptions, Slot
from lrfused.table import Entry, Operand
from lrfused.triton import words as w
from lrfused.triton.shapes import Programs
from lrfused.work import Work

Words = NDArray[np.int64]


def int64(values: object, device: torch.device) -> Tensor:
    """Words on the device; never none, so that they have an address."""
    array = np.asarray(values, dtype=np.int64).reshape(-1)
    return torch.from_numpy(array if array.size else np.zeros(1, np.int64)).to(device)


def float64(values: object, device: torch.device) -> Tensor:
    """Numbers on the device; never none."""
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    return torch.from_numpy(array if array.size else np.zeros(1)).to(device)


def _units(entry: Entry) -> tuple[int, int]:
    """(number of units, their length); a tensor without units is one."""
    count = entry.p.flat.numel()
    return (count // entry.unit, entry.unit) if entry.unit else (1, count)


def _parts(entries: list[Entry], size: int) -> Words:
    """Every tensor cut into parts of at most ``size`` elements, none across two units."""
    parts = [np.zeros((0, int(w.PART_SIZE)), dtype=np.int64)]
    first_unit = 0
    for t, entry in enumerate(entries):
        units, length = _units(entry)
        starts = np.arange(0, length, size, dtype=np.int64)
        unit = np.repeat(np.arange(units, dtype=np.int64), len(starts))
        within = np.tile(starts, units)
        part = np.zeros((len(unit), int(w.PART_SIZE)), dtype=np.int64)
        part[:, w.PART_TENSOR] = t
        part[:, w.PART_UNIT] = first_unit + unit
        part[:, w.PART_OFFSET] = unit * length + within
        part[:, w.PART_COUNT] = np.minimum(size, length - within)
        parts.append(part)
        first_unit += units
    return np.concatenate(parts)


def _halves(chunks: Words) -> Words:
    """What the programs of measure do; the second half of a short chunk has nothing in it."""
    rows = np.zeros((len(chunks), 2, int(w.HALF_SIZE)), dtype=np.int64)
    rows[:, :, w.HALF_CHUNK] = np.arange(len(chunks))[:, None]
    rows[:, 1, w.HALF_SECOND] = 1
    needed = np.ones((len(chunks), 2), dtype=bool)
    needed[:, 1] = chunks[:, w.PART_COUNT] > int(w.HALF)
    return rows[needed]


def _unit_rows(entries: list[Entry]) -> Words:
    rows = [np.zeros((0, int(w.UNIT_SIZE)), dtype=np.int64)]
    first = 0
    for entry in entries:
        units, length = _units(entry)
        chunks = -(-length // CHUNK)
        row = np.zeros((units, int(w.UNIT_SIZE)), dtype=np.int64)
        row[:, w.UNIT_FIRST] = first + chunks * np.arange(units)
        row[:, w.UNIT_CHUNKS] = chunks
        row[:, w.UNIT_GROUP] = entry.group
        rows.append(row)
        first += units * chunks
    return np.concatenate(rows)


def _address(operand: Operand | None) -> int:
    return 0 if operand is None else operand.flat.data_ptr()


def _tensor_rows(work: Work) -> Words:
    rows = np.zeros((len(work.entries), int(w.TENSOR_SIZE)), dtype=np.int64)
    for row, entry in zip(rows, work.entries, strict=True):
        row[w.TENSOR_P] = _address(entry.p)
        row[w.TENSOR_M] = _address(entry.m)
        row[w.TENSOR_V] = _address(entry.v)
        row[w.TENSOR_X] = _address(entry.x)
        row[w.TENSOR_GROUP] = entry.group
    return rows


def _group_rows(groups: list[GroupOptions], programs: Programs) -> Words:
    rows = np.zeros((len(groups), int(w.GROUP_SIZE)), dtype=np.int64)
    for index, (row, group) in enumerate(zip(rows, groups, strict=True)):
        row[w.GROUP_START] = group.start_step
        row[w.GROUP_DECAY_MODE] = group.decay_mode
        row[w.GROUP_PEAK_LR] = np.float64(group.peak_lr).view(np.int64)
        row[w.GROUP_CORRECTION] = group.bias_correction
        row[w.GROUP_AGC] = group.agc
        row[w.GROUP_MAXIMIZE] = group.maximize
        row[w.GROUP_CLIP_SHAPE], row[w.GROUP_CLIP_ROW] = programs.clips.get(index, (-1, -1))
    return rows


def _numbers(work: Work) -> NDArray[np.float64]:
    numbers = np.zeros(int(w.NUMBERS))
    numbers[w.ACCUMULATION_STEPS] = work.options.accumulation_steps
    policy = work.options.loss_scale
    if policy is not None:
        numbers[w.GROWTH_FACTOR] = policy.growth_factor
        numbers[w.BACKOFF_FACTOR] = policy.backoff_factor
        numbers[w.SMALLEST_SCALE] = policy.minimum
        numbers[w.LARGEST_SCALE] = policy.maximum
        numbers[w.GROWTH_INTERVAL] = policy.growth_interval
        numbers[w.HYSTERESIS] = policy.hysteresis
    return numbers


def make_table(work: Work, programs: Programs) -> w.Table:
    """All that does not change from step to step."""
    device = work.state.words.device
    chunks, units = _parts(work.entries, CHUNK), _unit_rows(work.entries)
    long_units = np.flatnonzero(units[:, w.UNIT_CHUNKS] > 1)
    sizes = (len(work.groups), len(work.entries), len(chunks), len(units), len(long_units))
    return w.Table(
        sizes=int64(sizes, device),
        chunks=int64(chunks, device),
        halves=int64(_halves(chunks), device),
        stretches=int64(_parts(work.entries, int(w.STRETCH)), device),
        tensors=int64(_tensor_rows(work), device),
        units=int64(units, device),
        long_units=int64(long_units, device),
        groups=int64(_group_rows(work.groups, programs), device),
        shapes=int64(programs.spans, device),
        rows=int64(programs.rows, device),
        samples=float64(programs.samples, device),
        digits=int64(TWO_OVER_PI.astype(np.int64), device),
        numbers=float64(_numbers(work), device),
    )


def make_measured(chunks: int, device: torch.device) -> w.Measured:
    """Room for what measure finds."""

    def room(dtype: torch.dtype) -> Tensor:
        return torch.zeros(max(2 * chunks, 1), dtype=dtype, device=device)

    return w.Measured(
        raw=room(torch.float64),
        clipped=room(torch.float64),
        param=room(torch.float64),
        largest=room(torch.int64),
        seen=room(torch.int64),
        findings=room(torch.int64),
        ticket=torch.zeros(1, dtype=torch.int32, device=device),
    )


def make_decided(work: Work, units: int) -> w.Decided:
    """Room for what plan decides."""
    device = work.state.words.device
    return w.Decided(
        matrix=torch.zeros(len(work.groups) * len(Slot), dtype=torch.float64, device=device),
        records=torch.zeros(2 * len(work.entries), dtype=torch.float64, device=device),
        factors=torch.ones(max(units, 1), dtype=torch.float64, device=device),
        scalars=torch.zeros(int(w.DECIDED_SCALARS), dtype=torch.float64, device=device),
        words=torch.zeros(int(w.DECIDED_WORDS), dtype=torch.int64, device=device),
    )


def state_of(work: Work) -> w.State:
    """The tensors that a step changes beside the parameters and their moments."""
    state = work.state
    counts = state.tensors
    return w.State(state.words, state.loss_scale, counts.counts, counts.steps, counts.products)


def flags_of(work: Work) -> int:
    """The options that kernels are compiled for."""
    options, groups = work.options, work.groups
    policy = options.loss_scale
    chosen = (
        (w.MEASURES, options.measures(groups)),
        (w.CLIP_NORM, options.clip_norm),
        (w.INFINITY_NORM, options.infinity_norm),
        (w.CHECKS_GRADIENTS, options.checks_gradients),
        (w.RAISES, options.raises_on_gradients),
        (w.ADVANCES_ON_SKIP, options.advance_schedule_on_skip),
        (w.DYNAMIC_SCALE, policy is not None and policy.dynamic),
        (w.WRITE_GRADS, options.write_grads),
        (w.CLIPS_BEFORE_NORM, any(g.value_clip or g.agc for g in groups)),
        (w.ADAPTIVE, any(g.agc for g in groups)),
    )
    return cast(int, sum(int(flag) for flag, is_set in chosen if is_set))
