"""The reference: measure, plan and apply in plain PyTorch, slow and obvious.

Every other backend is tested against this file bit for bit. One torch operation is one
rounding, always with 0-dim tensors of the compute type; scalars are float64 throughout plan
and rounded once, where they meet the tensors. Compute type: float64 for float64 parameters,
float32 for all others; gradients are converted to it before anything is done with them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrfused.device_state import DeviceState, Field
from lrfused.elementary import power_integer
from lrfused.norm import combine, sums_of_squares
from lrfused.options import (
    BiasCorrection,
    DecayMode,
    Error,
    GroupOptions,
    Nonfinite,
    Options,
    Slot,
)
from lrfused.table import Entry, Operand
from lrfused.work import Work

LARGEST_FLOAT32 = 3.4028234663852886e38
UNIT_NORM_FLOOR = 1e-3


@dataclass
class Measured:
    """Of one gradient, each by unit and chunk: sums of squares (raw, value-clipped, of p)."""

    raw: Tensor
    clipped: Tensor | None
    param: Tensor | None
    largest: Tensor  # absolute values by unit; nan if there is a nan


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


@dataclass
class Plan:
    """What apply is told."""

    proceed: bool
    groups: list[GroupPlan]
    step_size: dict[int, float]
    root_bias_correction2: dict[int, float]
    before: dict[int, np.ndarray]  # multiplier of g by unit, before the value clip
    after: dict[int, np.ndarray]  # and after it


def compute_type(p: Tensor) -> torch.dtype:
    """The type in which a parameter's arithmetic is done."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def scalar(value: float, like: Tensor) -> Tensor:
    """A 0-dim tensor: the number rounded once to the compute type."""
    return torch.tensor(float(value), dtype=like.dtype, device=like.device)


def square_root(x: Tensor) -> Tensor:
    """The IEEE square root: on a CPU torch's own is off by an ulp in 16% (float64: 1%)."""
    if x.dtype == torch.float32:
        return torch.sqrt(x.double()).float()
    if x.device.type == "cpu":
        return torch.from_numpy(np.sqrt(x.numpy()))
    return torch.sqrt(x)


def clamp(x: Tensor, bound: Tensor) -> Tensor:
    """Value clip by compare and select: nan stays nan."""
    x = torch.where(x > bound, bound, x)
    return torch.where(x < -bound, -bound, x)


def units_of(entry: Entry, flat: Tensor) -> Tensor:
    """A flat vector as a matrix with a row a unit; one row without units."""
    return flat.view(-1, entry.unit) if entry.unit else flat.view(1, -1)


def step(work: Work) -> None:
    """One optimizer step: measure, plan, apply."""
    groups = begin(work)
    if groups is None:
        return
    measured = measure(work, groups)
    decision = plan(work, groups, measured)
    if decision.proceed:
        apply(work, decision)


# measure


def inverse_scale(work: Work) -> float:
    """What unscales and averages a gradient."""
    scale = float(work.state.loss_scale[0]) * float(work.options.accumulation_steps)
    return 1.0 / (scale * work.grad_scale)


def measure(work: Work, groups: list[GroupPlan]) -> dict[int, Measured]:
    """The sums and the largest absolute value of every gradient of an active group."""
    if not work.options.measures(work.groups):
        return {}
    inverse = inverse_scale(work)
    measured = {}
    for index, gradient in work.gradients.items():
        entry = work.entries[index]
        if not groups[entry.group].active:
            continue
        options = work.groups[entry.group]
        dtype = compute_type(entry.p.flat)
        g = units_of(entry, gradient.flat.to(dtype))
        clipped = param = None
        if options.value_clip:
            bound = scalar(groups[entry.group].bound, g)
            clipped = sums_of_squares(clamp(g * scalar(inverse, g), bound))
        if options.agc:
            param = sums_of_squares(units_of(entry, entry.p.flat.to(dtype)))
        magnitude = g.abs().double()
        zero = torch.zeros((g.shape[0], 1), dtype=torch.float64, device=g.device)
        largest = torch.cat([zero, magnitude], 1).amax(1)
        measured[index] = Measured(sums_of_squares(g), clipped, param, largest)
    return measured


# plan


def begin(work: Work) -> list[GroupPlan] | None:
    """The hyperparameters at this step; None if one is not usable (then nothing changes)."""
    state = work.state
    now = int(state.words[Field.STEP])
    values = work.hyperparameters(now)
    state.words[Field.ERROR] = Error.NONE
    for g, options in enumerate(work.groups):
        for slot in Slot:
            if now >= options.start_step and not usable(slot, values[g, slot]):
                state.words[Field.ERROR] = Error.HYPERPARAMETER
                state.words[Field.ERROR_GROUP] = g
                state.words[Field.ERROR_SLOT] = slot
                state.words[Field.ERROR_STEP] = now
                state.floats[Field.ERROR_VALUE] = values[g, slot]
                return None
    state.floats[len(Field) :] = torch.from_numpy(values.reshape(-1)).to(state.words.device)
    return [group_plan(values[g], options, now) for g, options in enumerate(work.groups)]


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


def agc_coefficients(work: Work, entry: Entry, group: GroupPlan, sums: Measured) -> np.ndarray:
    """min(1, threshold * max(|p|, 1e-3) / |g|) for each unit (a tensor is one unit)."""
    effective = unscaled(work, sums)
    coefficients = np.ones(len(effective))
    if sums.param is None:
        return coefficients
    for unit in range(len(effective)):
        norm = np.sqrt(combine(effective[unit]))
        size = np.sqrt(combine(sums.param[unit]))
        limit = group.agc * (size if size > UNIT_NORM_FLOOR else UNIT_NORM_FLOOR)
        if norm > limit:
            coefficients[unit] = limit / norm
    return coefficients


def unscaled(work: Work, sums: Measured) -> Tensor:
    """Sums of squares of the unscaled, averaged, value-clipped gradient."""
    if sums.clipped is not None:
        return sums.clipped
    inverse = np.float64(inverse_scale(work))
    return sums.raw * float(inverse * inverse)


def norms(
    work: Work, groups: list[GroupPlan], measured: dict[int, Measured], agc: dict[int, np.ndarray]
) -> tuple[float, float, float]:
    """(norm before any clip, norm that the global clip sees, largest absolute raw gradient)."""
    inverse = inverse_scale(work)
    raw, seen, largest, largest_seen = [], [], 0.0, 0.0
    clips = any(o.value_clip or o.agc for o in work.groups)
    for index, entry in enumerate(work.entries):
        if index not in measured:
            chunks = torch.zeros(work.chunks[index], dtype=torch.float64)
            raw.append(chunks)
            seen.append(chunks)
            continue
        sums = measured[index]
        factors = torch.from_numpy(agc[index])
        raw.append(sums.raw.reshape(-1).cpu())
        seen.append((unscaled(work, sums).cpu() * (factors * factors)[:, None]).reshape(-1))
        bound = groups[entry.group].bound if work.groups[entry.group].value_clip else np.inf
        for magnitude, factor in zip(sums.largest.tolist(), factors.tolist(), strict=True):
            scaled = magnitude * inverse
            scaled = (bound if scaled > bound else scaled) * factor
            largest = propagating_maximum(largest, magnitude)
            largest_seen = propagating_maximum(largest_seen, scaled)
    if work.options.infinity_norm:
        before = largest * inverse
        return before, largest_seen if clips else before, largest
    before = float(np.sqrt(combine(torch.cat(raw))) * inverse) if raw else 0.0
    if not clips:
        return before, before, largest
    return before, float(np.sqrt(combine(torch.cat(seen)))), largest


def propagating_maximum(x: float, y: float) -> float:
    """The larger; nan if either is."""
    return x if x > y or x != x else y


def plan(work: Work, groups: list[GroupPlan], measured: dict[int, Measured]) -> Plan:
    """Decide: proceed or skip, the multipliers, the bias corrections, the next loss scale."""
    options, state = work.options, work.state
    active = [i for i in work.gradients if groups[work.entries[i].group].active]
    agc = {
        i: agc_coefficients(work, work.entries[i], groups[work.entries[i].group], sums)
        for i, sums in measured.items()
    }
    nonfinite, coefficient = False, 1.0
    if options.measures(work.groups):
        norm, seen, largest = norms(work, groups, measured, agc)
        nonfinite = any(overflows(work, i, sums) for i, sums in measured.items())
        if options.nonfinite == Nonfinite.RAISE and nonfinite:
            state.words[Field.ERROR] = Error.GRADIENT
            state.words[Field.ERROR_STEP] = state.words[Field.STEP]
            return Plan(False, groups, {}, {}, {}, {})
        if options.clip_norm:
            ratio = np.float64(work.max_grad_norm()) / np.float64(seen + 1e-6)
            coefficient = float(ratio) if ratio < 1.0 or ratio != ratio else 1.0
        state.floats[Field.GRAD_NORM] = norm
        state.floats[Field.LARGEST_GRADIENT] = largest
    state.floats[Field.CLIP_COEFFICIENT] = coefficient
    skip = (nonfinite and options.checks_gradients) or work.found_inf
    decision = Plan(not skip, groups, {}, {}, {}, {})
    if not skip:
        inverse = inverse_scale(work)
        for index in active:
            entry = work.entries[index]
            group_options = work.groups[entry.group]
            factors = agc.get(index, np.ones(1))
            sign = -1.0 if group_options.maximize else 1.0
            if group_options.value_clip:
                decision.before[index] = np.full(len(factors), sign * inverse)
                decision.after[index] = factors * coefficient
            else:
                decision.before[index] = sign * ((inverse * factors) * coefficient)
                decision.after[index] = np.ones(len(factors))
            correct_bias(work, index, groups[entry.group], decision)
    count_step(work, skip, coefficient)
    if options.loss_scale is not None and options.loss_scale.dynamic:
        update_loss_scale(state, options, skip)
    return decision


def overflows(work: Work, index: int, sums: Measured) -> bool:
    """A gradient is not finite, before or after it is unscaled in the compute type."""
    like = torch.zeros(1, dtype=compute_type(work.entries[index].p.flat))
    inverse = scalar(inverse_scale(work), like)
    return not bool(torch.isfinite(sums.largest.cpu().to(like.dtype) * inverse).all())


def correct_bias(work: Work, index: int, group: GroupPlan, decision: Plan) -> None:
    """Count the parameter's update; lr / (1 - beta1**count) and sqrt(1 - beta2**count)."""
    state = work.state
    shown = float(state.steps[index])
    if shown != float(np.float32(int(state.counts[index]))):
        state.counts[index] = int(shown)  # somebody wrote state["step"]: it counts
    state.counts[index] += 1
    count = np.array([int(state.counts[index])])
    state.steps[index] = float(np.float32(count[0]))
    state.products[index, 0] *= group.beta1
    state.products[index, 1] *= group.beta2
    if work.groups[work.entries[index].group].bias_correction == BiasCorrection.PRODUCT:
        product1, product2 = (float(x) for x in state.products[index])
    else:
        product1 = float(power_integer(np.array([group.beta1]), count)[0])
        product2 = float(power_integer(np.array([group.beta2]), count)[0])
    decision.step_size[index] = float(np.float64(group.lr) / np.float64(1.0 - product1))
    decision.root_bias_correction2[index] = float(np.sqrt(1.0 - product2))


def count_step(work: Work, skip: bool, coefficient: float) -> None:
    """Move the counters: a skipped step leaves the schedule where it is, unless told otherwise."""
    words = work.state.words
    if skip:
        words[Field.SKIPPED_STEPS] += 1
        words[Field.CONSECUTIVE_SKIPS] += 1
        words[Field.STEP] += int(work.options.advance_schedule_on_skip)
        return
    words[Field.CONSECUTIVE_SKIPS] = 0
    words[Field.CLIPPED_STEPS] += int(coefficient < 1.0)
    words[Field.STEP] += 1


def update_loss_scale(state: DeviceState, options: Options, bad: bool) -> None:
    """Growth and backoff; every product is rounded to float32, as GradScaler's are."""
    policy = options.loss_scale
    assert policy is not None
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


# apply


def apply(work: Work, decision: Plan) -> None:
    """Update parameters and state; with write_grads the gradients too."""
    for index in decision.step_size:
        entry, gradient = work.entries[index], work.gradients[index]
        group, options = decision.groups[entry.group], work.groups[entry.group]
        g = units_of(entry, gradient.flat.to(compute_type(entry.p.flat)))
        g = g * torch.stack([scalar(f, g) for f in decision.before[index]])[:, None]
        if options.value_clip:
            g = clamp(g, scalar(group.bound, g))
        g = g * torch.stack([scalar(f, g) for f in decision.after[index]])[:, None]
        g = g.reshape(-1)
        if work.options.write_grads:
            gradient.flat.copy_(-g if options.maximize else g)
        assert entry.m is not None and entry.v is not None
        update(
            g,
            entry.p,
            entry.m,
            entry.v,
            entry.x if options.amsgrad else None,
            group,
            decision.step_size[index],
            decision.root_bias_correction2[index],
        )


def update(
    g: Tensor,
    p_out: Operand,
    m_out: Operand,
    v_out: Operand,
    x_out: Operand | None,
    group: GroupPlan,
    step_size: float,
    root: float,
) -> None:
    """AdamW: decay, moments, bias-corrected step; torch.optim.AdamW's formulas in this order."""
    p, m, v = (operand.flat.to(g.dtype) for operand in (p_out, m_out, v_out))
    p = p * scalar(group.decay, g)
    m = m * scalar(group.beta1, g) + g * scalar(group.one_minus_beta1, g)
    v = v * scalar(group.beta2, g) + (g * scalar(group.one_minus_beta2, g)) * g
    second = v
    if x_out is not None:
        x = x_out.flat.to(g.dtype)
        second = torch.where((v > x) | torch.isnan(v), v, x)
        x_out.flat.copy_(second)
    denominator = square_root(second) / scalar(root, g) + scalar(group.eps, g)
    p = p - (m * scalar(step_size, g)) / denominator
    for operand, value in ((p_out, p), (m_out, m), (v_out, v)):
        operand.flat.copy_(value)
