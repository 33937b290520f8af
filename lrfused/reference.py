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

from lrfused.counts import is_count
from lrfused.device_state import Field
from lrfused.norm import combine, sums_of_squares
from lrfused.options import Error, Slot
from lrfused.plan import (
    GroupPlan,
    agc_coefficient,
    clip_coefficient,
    count_step,
    count_update,
    group_plan,
    propagating_maximum,
    update_loss_scale,
    usable,
)
from lrfused.table import Entry, Operand
from lrfused.work import Work


@dataclass
class Measured:
    """Of one gradient, each by unit and chunk: sums of squares (raw, value-clipped, of p)."""

    raw: Tensor
    clipped: Tensor | None
    param: Tensor | None
    largest: Tensor  # absolute values by unit; nan if there is a nan


@dataclass
class Plan:
    """What apply is told."""

    proceed: bool
    groups: list[GroupPlan]
    step_size: dict[int, float]
    inverse_root: dict[int, float]
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
    with np.errstate(all="ignore"):  # IEEE semantics: infinities and nan are values
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
    return float(np.float64(1.0) / np.float64(scale * work.grad_scale))


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
                state.words[Field.ERROR_PLACE] = g
                state.words[Field.ERROR_SLOT] = slot
                state.words[Field.ERROR_STEP] = now
                state.floats[Field.ERROR_VALUE] = values[g, slot]
                return None
    plans = [group_plan(values[g], options, now) for g, options in enumerate(work.groups)]
    for index in work.gradients:
        shown = float(state.tensors.steps[index])
        if plans[work.entries[index].group].active and not is_count(shown):
            state.words[Field.ERROR] = Error.COUNT
            state.words[Field.ERROR_PLACE] = index
            state.words[Field.ERROR_STEP] = now
            state.floats[Field.ERROR_VALUE] = shown
            return None
    state.floats[len(Field) :] = torch.from_numpy(values.reshape(-1)).to(state.words.device)
    return plans


def agc_coefficients(work: Work, group: GroupPlan, sums: Measured) -> np.ndarray:
    """What adaptive clipping multiplies each unit by (a tensor is one unit)."""
    if sums.param is None:
        return np.ones(len(sums.raw))
    pairs = zip(unscaled(work, sums), sums.param, strict=True)
    return np.array([agc_coefficient(group.agc, combine(g), combine(p)) for g, p in pairs])


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
            chunks = torch.zeros(work.chunks[index], dtype=torch.float64, device="cpu")
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


def plan(work: Work, groups: list[GroupPlan], measured: dict[int, Measured]) -> Plan:
    """Decide: proceed or skip, the multipliers, the bias corrections, the next loss scale."""
    options, state = work.options, work.state
    active = [i for i in work.gradients if groups[work.entries[i].group].active]
    agc = {
        i: agc_coefficients(work, groups[work.entries[i].group], sums)
        for i, sums in measured.items()
    }
    nonfinite, coefficient = False, 1.0
    if options.measures(work.groups):
        norm, seen, largest = norms(work, groups, measured, agc)
        nonfinite = any(overflows(work, i, sums) for i, sums in measured.items())
        if nonfinite and options.raises_on_gradients and not work.found_inf:
            state.words[Field.ERROR] = Error.GRADIENT
            state.words[Field.ERROR_STEP] = state.words[Field.STEP]
            return Plan(False, groups, {}, {}, {}, {})
        if options.clip_norm:
            coefficient = clip_coefficient(work.max_grad_norm(), seen)
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
            decision.step_size[index], decision.inverse_root[index] = count_update(
                state.tensors, index, groups[entry.group], group_options.bias_correction
            )
    count_step(state, skip, coefficient, options.advance_schedule_on_skip)
    if options.loss_scale is not None and options.loss_scale.dynamic:
        update_loss_scale(state, options.loss_scale, skip)
    return decision


def overflows(work: Work, index: int, sums: Measured) -> bool:
    """A gradient is not finite, before or after it is unscaled in the compute type."""
    like = torch.zeros(1, dtype=compute_type(work.entries[index].p.flat), device="cpu")
    inverse = scalar(inverse_scale(work), like)
    return not bool(torch.isfinite(sums.largest.cpu().to(like.dtype) * inverse).all())


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
            decision.inverse_root[index],
        )


def update(
    g: Tensor,
    p_out: Operand,
    m_out: Operand,
    v_out: Operand,
    x_out: Operand | None,
    group: GroupPlan,
    step_size: float,
    inverse_root: float,
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
    denominator = square_root(second) * scalar(inverse_root, g) + scalar(group.eps, g)
    p = p - (m * scalar(step_size, g)) / denominator
    for operand, value in ((p_out, p), (m_out, m), (v_out, v)):
        operand.flat.copy_(value)
