"""The table on the device, fixed once it is built, and room for what kernels hand to each other."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrfused.backends.rows import Column
from lrfused.backends.triton import words as w
from lrfused.backends.triton.shapes import Programs
from lrfused.backends.work import Work
from lrfused.device.patches import Patched
from lrfused.memory.pieces import pieces, sums_before
from lrfused.numerics.elementary import TWO_OVER_PI
from lrfused.numerics.norm import CHUNK, SPAN
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot

Words = NDArray[np.int64]

# Whose programs a group's row names: slots that are needed before plan, the scalars of the rule.
OWN_PROGRAMS = (
    (Slot.CLIP_VALUE, int(w.GROUP_CLIP_SHAPE)),
    (Slot.AGC, int(w.GROUP_AGC_SHAPE)),
    (None, int(w.GROUP_SCALARS_SHAPE)),
)


def _parts(work: Work, size: int) -> Words:
    """The pieces of all tensors as rows: words.PART_TENSOR and what follows it."""
    counts, unit = work.tensors[:, Column.COUNT], work.tensors[:, Column.UNIT]
    return np.stack(pieces(counts, unit, size), 1)


def _here(work: Work, parts: Words) -> NDArray[np.bool_]:
    """Which parts have memory on this device: what lies on another has rows and chunks only."""
    is_here: NDArray[np.bool_] = work.tensors[parts[:, w.PART_TENSOR], Column.PARAM] != 0
    return is_here


def _halves(chunks: Words, is_here: NDArray[np.bool_]) -> Words:
    """What the programs of measure do; the second half of a short chunk has nothing in it."""
    rows = np.zeros((len(chunks), 2, int(w.HALF_SIZE)), dtype=np.int64)
    rows[:, :, w.HALF_CHUNK] = np.arange(len(chunks))[:, None]
    rows[:, 1, w.HALF_SECOND] = 1
    needed = np.stack([is_here, is_here & (chunks[:, w.PART_COUNT] > int(w.HALF))], 1)
    return rows[needed]


def _unit_rows(work: Work) -> Words:
    units, _, per_unit = work.cuts(CHUNK)
    tensor = np.repeat(np.arange(len(units)), units)
    rows = np.zeros((len(tensor), int(w.UNIT_SIZE)), dtype=np.int64)
    rows[:, w.UNIT_CHUNKS] = per_unit[tensor]
    rows[:, w.UNIT_FIRST] = sums_before(rows[:, w.UNIT_CHUNKS])
    rows[:, w.UNIT_GROUP] = work.tensors[tensor, Column.GROUP]
    return rows


def _spans(halves: Words, chunks: int) -> Words:
    """How many programs measure each span; one span at least."""
    return np.bincount(halves[:, w.HALF_CHUNK] // SPAN, minlength=span_count(chunks))


def _are_long(units: Words, groups: list[GroupOptions]) -> NDArray[np.bool_]:
    """The units whose factor nobody knows before all of several chunks are measured."""
    adapts = np.array([bool(group.agc) for group in groups], dtype=bool)
    return adapts[units[:, w.UNIT_GROUP]] & (units[:, w.UNIT_CHUNKS] > 1)


def _spans_of(units: Words, chosen: NDArray[np.bool_]) -> Words:
    """The spans that hold chunks of the chosen units."""
    return np.unique(np.flatnonzero(np.repeat(chosen, units[:, w.UNIT_CHUNKS])) // SPAN)


def span_count(chunks: int) -> int:
    """One at least, which then is empty."""
    return max(1, -(-chunks // SPAN))


def _tensor_rows(work: Work) -> Words:
    rows = np.zeros((len(work.entries), int(w.TENSOR_SIZE)), dtype=np.int64)
    operands = work.tensors[:, Column.OPERANDS :: 2]
    rows[:, w.TENSOR_P] = work.tensors[:, Column.PARAM]
    rows[:, w.TENSOR_GROUP] = work.tensors[:, Column.GROUP]
    rows[:, int(w.TENSOR_STATE) : int(w.TENSOR_STATE) + operands.shape[1]] = operands
    rows[:, w.TENSOR_AVERAGE] = work.tensors[:, Column.AVERAGE]
    rows[:, w.TENSOR_MASK] = work.tensors[:, Column.MASK]
    return rows


def _group_rows(work: Work, programs: Programs) -> Words:
    rows = np.zeros((len(work.groups), int(w.GROUP_SIZE)), dtype=np.int64)
    for index, (row, group) in enumerate(zip(rows, work.groups, strict=True)):
        row[w.GROUP_START] = group.start_step
        row[w.GROUP_AGC] = group.agc
        row[w.GROUP_MAXIMIZE] = group.maximize
        row[w.GROUP_AVERAGE_EVERY] = group.average_every
        for slot, place in OWN_PROGRAMS:
            row[place : place + 2] = programs.places.get((slot, index), (-1, -1))
        row[int(w.GROUP_RANGES) :] = [work.rule.range_of(slot, group) for slot in Slot]
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


class TableOnDevice:
    """The table's arrays on the device; when the work changes, only what differs is uploaded."""

    def __init__(self, device: torch.device):
        self._arrays = {name: Patched(device) for name in w.Table._fields}

    def write(self, work: Work, programs: Programs) -> w.Table:
        """All that does not change from step to step."""
        tensors = {}
        for name, values in _contents(work, programs).items():
            kind = np.float64 if name in w.FLOATS else np.int64
            words = np.asarray(values, dtype=kind).reshape(-1).view(np.int64)
            tensor = self._arrays[name].write(words)
            tensors[name] = tensor.view(torch.float64) if name in w.FLOATS else tensor
        return w.Table(**tensors)


def _contents(work: Work, programs: Programs) -> dict[str, object]:
    """What the fields of words.Table hold."""
    chunks, units = _parts(work, CHUNK), _unit_rows(work)
    stretches = _parts(work, int(w.STRETCH))
    halves = _halves(chunks, _here(work, chunks))
    spans, are_long = _spans(halves, len(chunks)), _are_long(units, work.groups)
    long_units, long_spans = np.flatnonzero(are_long), _spans_of(units, are_long)
    long = (len(long_units), len(long_spans))
    return {
        "sizes": (len(work.groups), len(work.entries), len(chunks), len(spans), *long),
        "chunks": chunks,
        "halves": halves,
        "stretches": stretches[_here(work, stretches)],
        "tensors": _tensor_rows(work),
        "units": units,
        "spans": spans,
        "long_units": long_units,
        "long_spans": long_spans,
        "groups": _group_rows(work, programs),
        "shapes": programs.spans,
        "rows": programs.rows,
        "samples": programs.samples,
        "digits": TWO_OVER_PI.astype(np.int64),
        "numbers": _numbers(work),
    }


def make_measured(chunks: int, device: torch.device) -> tuple[Tensor, w.Measured]:
    """Room for what measure finds: of chunks as rows of one tensor, and all of it by name."""
    rows = torch.zeros((8, max(2 * chunks, 2)), dtype=torch.int64, device=device)
    raw, clipped, param = rows[:3].view(torch.float64)
    largest, seen, findings, elements, normal = rows[3:]
    count = span_count(chunks)
    spans = torch.zeros((count, int(w.SPAN_SIZE)), dtype=torch.int64, device=device)
    tickets = torch.zeros(1 + count, dtype=torch.int32, device=device)
    counts = (elements, normal)
    return rows, w.Measured(raw, clipped, param, largest, seen, findings, *counts, spans, tickets)


def make_decided(work: Work, units: int) -> tuple[Tensor, w.Decided]:
    """Room for what plan decides: as one tensor, and by name.

    All of it at multiples of 16 bytes, whatever the sizes: else Triton would compile again.
    """
    values, of_rule = len(work.groups) * len(Slot), len(work.rule.scalars) * len(work.entries)
    numbers = [max(n + n % 2, 2) for n in (values, of_rule, units, int(w.DECIDED_SCALARS))]
    size = sum(numbers) + int(w.DECIDED_WORDS)
    room = torch.zeros(size, dtype=torch.int64, device=work.state.words.device)
    floats, words = room[: sum(numbers)].view(torch.float64), room[sum(numbers) :]
    matrix, records, factors, scalars = torch.split(floats, numbers)
    factors.fill_(1.0)
    return room, w.Decided(matrix, records, factors, scalars, words)


def state_of(work: Work) -> w.State:
    """The tensors that a step changes beside the parameters and what the rule has of them."""
    return w.State(**work.state_tensors)


def flags_of(work: Work) -> int:
    """The options that kernels are compiled for."""
    options, groups = work.options, work.groups
    policy = options.loss_scale
    rides = options.zero_grads or any(group.average_every for group in groups)
    rides |= any(entry.mask is not None for entry in work.entries)
    chosen = (
        (w.MEASURES, options.measures(groups)),
        (w.CLIP_NORM, options.clip_norm),
        (w.INFINITY_NORM, options.infinity_norm),
        (w.CHECKS_GRADIENTS, options.checks_gradients),
        (w.RAISES, options.raises_on_gradients),
        (w.ADVANCES_ON_SKIP, options.advance_schedule_on_skip),
        (w.DYNAMIC_SCALE, policy is not None and policy.dynamic),
        (w.WRITE_GRADS, options.write_grads),
        (w.ZERO_GRADS, options.zero_grads),
        (w.RIDES, rides),
        (w.CLIPS_BEFORE_NORM, any(g.value_clip or g.agc for g in groups)),
        (w.ADAPTIVE, any(g.agc for g in groups)),
    )
    return cast(int, sum(int(flag) for flag, is_set in chosen if is_set))
