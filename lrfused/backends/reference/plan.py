"""Plan: refuse, skip or proceed; what each gradient is multiplied by; the counters."""

from dataclasses import dataclass, field

import numpy as np
import torch

from lrfused.backends.reference.arithmetic import inverse_scale
from lrfused.backends.reference.measure import Measured
from lrfused.backends.reference.norms import agc_coefficients, norms, overflows, tiny_share
from lrfused.backends.reference.scalars import (
    GroupPlan,
    clip_coefficient,
    count_step,
    count_update,
    group_plan,
    update_loss_scale,
)
from lrfused.backends.work import Work
from lrfused.settings.options import Error
from lrfused.settings.slots import Slot, is_usable
from lrfused.state.device_state import Field
from lrfused.state.step_counts import is_count


@dataclass
class Move:
    """How one parameter moves."""

    pre_scale: np.ndarray  # multiplier of g by unit, before the value clip
    post_scale: np.ndarray  # and after it
    scalars: dict[str, float]  # of the rule


@dataclass
class Plan:
    """What apply is told; moves by the parameter's place in the table.

    Of a step that is ``refused`` nothing is done, of one that is skipped only zero_grads.
    """

    proceed: bool
    groups: list[GroupPlan]
    refused: bool = False
    moves: dict[int, Move] = field(default_factory=dict)


def begin(work: Work) -> list[GroupPlan] | None:
    """The hyperparameters at this step; None if one is not usable (then nothing changes)."""
    state = work.state
    now = int(state.words[Field.STEP])
    values = work.hyperparameters(now)
    state.words[Field.ERROR] = Error.NONE
    for g, options in enumerate(work.groups):
        for slot in Slot:
            kind = work.rule.range_of(slot, options)
            is_read = now >= options.start_step or slot == Slot.EMA_DECAY
            if is_read and not is_usable(kind, values[g, slot]):
                state.words[Field.ERROR_SLOT] = slot
                _refuse(work, Error.HYPERPARAMETER, g, values[g, slot])
                return None
    plans = [group_plan(values[g], options, now) for g, options in enumerate(work.groups)]
    for index in work.gradients:
        shown = float(state.tensors.steps[index])
        if plans[work.entries[index].group].active and not is_count(shown):
            _refuse(work, Error.COUNT, index, shown)
            return None
    state.floats[len(Field) :] = torch.from_numpy(values.reshape(-1)).to(state.words.device)
    return plans


def _refuse(work: Work, error: Error, place: int, value: float) -> None:
    """Latch what is wrong, where and when."""
    words = work.state.words
    words[Field.ERROR] = error
    words[Field.ERROR_PLACE] = place
    words[Field.ERROR_STEP] = words[Field.STEP]
    work.state.floats[Field.ERROR_VALUE] = value


def plan(work: Work, groups: list[GroupPlan], measured: dict[int, Measured]) -> Plan:
    """Decide: proceed or skip, the multipliers, the bias corrections, the next loss scale."""
    options, state = work.options, work.state
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
            return Plan(False, groups, refused=True)
        if options.clip_norm:
            coefficient = clip_coefficient(work.max_grad_norm(), seen)
        state.floats[Field.GRAD_NORM] = norm
        state.floats[Field.LARGEST_GRADIENT] = largest
        state.floats[Field.TINY_GRADIENTS] = tiny_share(measured.values())
    state.floats[Field.CLIP_COEFFICIENT] = coefficient
    skip = (nonfinite and options.checks_gradients) or work.found_inf
    decision = Plan(not skip, groups)
    if not skip:
        for index in work.gradients:
            group = groups[work.entries[index].group]
            if group.active:
                factors = agc.get(index, np.ones(1))
                decision.moves[index] = _move(work, index, group, factors, coefficient)
    count_step(state, skip, coefficient, options.advance_schedule_on_skip)
    if options.loss_scale is not None and options.loss_scale.dynamic:
        update_loss_scale(state, options.loss_scale, skip)
    return decision


def _move(
    work: Work, index: int, group: GroupPlan, factors: np.ndarray, coefficient: float
) -> Move:
    """Multipliers and scalars of one parameter, whose update is counted."""
    g = work.entries[index].group
    inverse = inverse_scale(work)
    sign = -1.0 if work.groups[g].maximize else 1.0
    if work.groups[g].value_clip:
        pre_scale, post_scale = np.full(len(factors), sign * inverse), factors * coefficient
    else:
        pre_scale = sign * ((inverse * factors) * coefficient)
        post_scale = np.ones(len(factors))
    return Move(pre_scale, post_scale, _scalars(work, index, g))


def _scalars(work: Work, index: int, g: int) -> dict[str, float]:
    """What the rule's program says for one parameter, and what it carries on."""
    counts, rule = work.state.tensors, work.rule
    count = np.array([count_update(counts, index)], dtype=np.float64)
    carried = counts.carried[index].tolist()
    program = rule.program(work.groups[g])
    values = [float(x[0]) for x in program.evaluate_all(count, (*work.values[g], *carried))]
    for place, value in enumerate(values[len(rule.scalars) :]):
        counts.carried[index, place] = value
    return dict(zip(rule.scalars, values, strict=False))
