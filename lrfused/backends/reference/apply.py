"""Apply: parameters and state move; with write_grads the gradients, too."""

import torch
from torch import Tensor

from lrfused.backends.reference.arithmetic import clamp, compute_type, scalar, square_root, units_of
from lrfused.backends.reference.plan import Move, Plan
from lrfused.backends.reference.scalars import GroupPlan
from lrfused.backends.work import Work
from lrfused.memory.operands import Entry
from lrfused.settings.options import GroupOptions


def apply(work: Work, decision: Plan) -> None:
    """Update everything that moves."""
    for index, move in decision.moves.items():
        entry, gradient = work.entries[index], work.gradients[index]
        group, options = decision.groups[entry.group], work.groups[entry.group]
        g = units_of(entry, gradient.flat.to(compute_type(entry.p.flat)))
        g = g * torch.stack([scalar(f, g) for f in move.before])[:, None]
        if options.value_clip:
            g = clamp(g, scalar(group.bound, g))
        g = g * torch.stack([scalar(f, g) for f in move.after])[:, None]
        g = g.reshape(-1)
        if work.options.write_grads:
            gradient.flat.copy_(-g if options.maximize else g)
        update(g, entry, options, group, move)


def update(g: Tensor, entry: Entry, options: GroupOptions, group: GroupPlan, move: Move) -> None:
    """AdamW: decay, moments, bias-corrected step; torch.optim.AdamW's formulas in this order."""
    assert entry.m is not None and entry.v is not None
    operands = (entry.p, entry.m, entry.v)
    p, m, v = (operand.flat.to(g.dtype) for operand in operands)
    p = p * scalar(group.decay, g)
    m = m * scalar(group.beta1, g) + g * scalar(group.one_minus_beta1, g)
    v = v * scalar(group.beta2, g) + (g * scalar(group.one_minus_beta2, g)) * g
    second = v
    if options.amsgrad:
        assert entry.x is not None
        x = entry.x.flat.to(g.dtype)
        second = torch.where((v > x) | torch.isnan(v), v, x)
        entry.x.flat.copy_(second)
    denominator = square_root(second) * scalar(move.inverse_root, g) + scalar(group.eps, g)
    p = p - (m * scalar(move.step_size, g)) / denominator
    for operand, value in zip(operands, (p, m, v), strict=True):
        operand.flat.copy_(value)
