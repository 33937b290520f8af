"""The scalars of a step: plan's arithmetic, in float64; csrc/core/plan.h is the same in C++."""

from dataclasses import dataclass

import numpy as np

from lrfused.rules.average import average_weight
from lrfused.settings.loss_scale import LossScale
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import LARGEST_FLOAT32, Slot
from lrfused.state.device_state import DeviceState, Field
from lrfused.state.step_counts import Counts

UNIT_NORM_FLOOR = 1e-3


@dataclass
class GroupPlan:
    """What a step uses of a group besides its rule, in float64."""

    active: bool
    clip_bound: float
    agc: float
    average_weight: float


def group_plan(values: np.ndarray, options: GroupOptions, now: int) -> GroupPlan:
    """Of one group."""
    bound = values[Slot.CLIP_VALUE] if options.value_clip else np.inf
    weight = average_weight(float(values[Slot.EMA_DECAY]), options.average_every, now)
    return GroupPlan(now >= options.start_step, bound, values[Slot.AGC], weight)


def agc_coefficient(threshold: float, gradient: float, weight: float) -> float:
    """min(1, threshold * max(|p|, 1e-3) / |g|), from the two sums of squares of a unit."""
    norm, size = np.sqrt(gradient), np.sqrt(weight)
    limit = threshold * (size if size > UNIT_NORM_FLOOR else UNIT_NORM_FLOOR)
    return float(limit / norm) if norm > limit else 1.0


def clip_coefficient(threshold: float, norm: float) -> float:
    """min(1, threshold / (norm + 1e-6)), as torch's clip_grad_norm_; nan stays nan."""
    ratio = np.float64(threshold) / np.float64(norm + 1e-6)
    return float(ratio) if ratio < 1.0 or ratio != ratio else 1.0


def propagating_maximum(x: float, y: float) -> float:
    """The larger of two; nan if either is."""
    return x if x > y or x != x else y


def count_update(counts: Counts, index: int) -> int:
    """Count a parameter's update; returned is its count now."""
    shown = float(counts.steps[index])
    if shown != float(np.float32(int(counts.counts[index]))):
        counts.counts[index] = int(shown)  # somebody wrote state["step"]: it counts
    counts.counts[index] += 1
    count = int(counts.counts[index])
    counts.steps[index] = float(np.float32(count))
    return count


def count_step(state: DeviceState, skip: bool, coefficient: float, advance_on_skip: bool) -> None:
    """Move the counters: a skipped step leaves the schedule where it is, unless told otherwise."""
    words = state.words
    if skip:
        words[Field.SKIPPED_STEPS] += 1
        words[Field.CONSECUTIVE_SKIPS] += 1
        words[Field.STEP] += int(advance_on_skip)
        return
    words[Field.CONSECUTIVE_SKIPS] = 0
    words[Field.CLIPPED_STEPS] += int(coefficient < 1.0)
    words[Field.STEP] += 1


def update_loss_scale(state: DeviceState, policy: LossScale, bad: bool) -> None:
    """Growth and backoff; every product is rounded to float32, as GradScaler's are."""
    words, scale = state.words, float(state.loss_scale[0])
    if bad:
        words[Field.GROWTH_TRACKER] = 0
        words[Field.HYSTERESIS_TRACKER] -= 1
        if words[Field.HYSTERESIS_TRACKER] <= 0:
            lower = scale * policy.backoff_factor
            scale = lower if lower > policy.minimum else policy.minimum
    else:
        words[Field.HYSTERESIS_TRACKER] = policy.hysteresis
        words[Field.GROWTH_TRACKER] += 1
        if words[Field.GROWTH_TRACKER] >= policy.growth_interval:
            words[Field.GROWTH_TRACKER] = 0
            higher = scale * policy.growth_factor
            if higher <= LARGEST_FLOAT32:
                scale = higher if higher < policy.maximum else policy.maximum
    state.loss_scale[0] = scale
    state.floats[Field.LOSS_SCALE] = float(state.loss_scale[0])
