"""The scalars of a step: plan's arithmetic, in float64; csrc/core/plan.h is the same in C++."""

from dataclasses import dataclass

import numpy as np

from lrfused.numerics.elementary import power_integer
from lrfused.settings.loss_scale import LARGEST_FLOAT32, LossScale
from lrfused.settings.options import BiasCorrection, DecayMode, GroupOptions, Slot
from lrfused.state.device_state import DeviceState, Field
from lrfused.state.step_counts import Counts

UNIT_NORM_FLOOR = 1e-3


@dataclass
class GroupPlan:
    """The scalars of a group, in float64."""

    active: bool
    lr: float
    decay: float
    beta1: float
    one_minus_beta1: float
    beta2: float
    one_minus_beta2: float
    eps: float
    bound: float
    agc: float


def usable(slot: Slot, value: float) -> bool:
    """Thresholds may be infinite; betas lie in [0, 1); the rest must be finite in float32."""
    if slot in (Slot.CLIP_VALUE, Slot.AGC, Slot.MAX_GRAD_NORM):
        return bool(value >= 0.0)
    if slot in (Slot.BETA1, Slot.BETA2):
        return bool(0.0 <= value < 1.0)
    return bool(abs(value) <= LARGEST_FLOAT32)


def group_plan(values: np.ndarray, options: GroupOptions, now: int) -> GroupPlan:
    """The scalars of one group."""
    lr, weight_decay = values[Slot.LR], values[Slot.WEIGHT_DECAY]
    if options.decay_mode == DecayMode.LR:
        decay = 1.0 - lr * weight_decay
    elif options.decay_mode == DecayMode.INDEPENDENT:
        decay = 1.0 - weight_decay
    else:
        decay = 1.0 - weight_decay * (lr / options.peak_lr)
    beta1, beta2 = values[Slot.BETA1], values[Slot.BETA2]
    return GroupPlan(
        active=now >= options.start_step,
        lr=lr,
        decay=decay,
        beta1=beta1,
        one_minus_beta1=1.0 - beta1,
        beta2=beta2,
        one_minus_beta2=1.0 - beta2,
        eps=values[Slot.EPS],
        bound=values[Slot.CLIP_VALUE],
        agc=values[Slot.AGC],
    )


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


def count_update(
    counts: Counts, index: int, group: GroupPlan, correction: BiasCorrection
) -> tuple[float, float]:
    """Count a parameter's update; lr / (1 - beta1**count) and 1 / sqrt(1 - beta2**count)."""
    shown = float(counts.steps[index])
    if shown != float(np.float32(int(counts.counts[index]))):
        counts.counts[index] = int(shown)  # somebody wrote state["step"]: it counts
    counts.counts[index] += 1
    count = np.array([int(counts.counts[index])])
    counts.steps[index] = float(np.float32(count[0]))
    counts.products[index, 0] *= group.beta1
    counts.products[index, 1] *= group.beta2
    if correction == BiasCorrection.PRODUCT:
        product1, product2 = (float(x) for x in counts.products[index])
    else:
        product1 = float(power_integer(np.array([group.beta1]), count)[0])
        product2 = float(power_integer(np.array([group.beta2]), count)[0])
    step_size = np.float64(group.lr) / np.float64(1.0 - product1)
    return float(step_size), float(1.0 / np.sqrt(np.float64(1.0 - product2)))


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
