"""Apply: parameters and state move; with write_grads the gradients, too."""

from types import SimpleNamespace

import torch
from torch import Tensor

from lrfused.backends.reference.arithmetic import gradient_of, used_operands
from lrfused.backends.reference.plan import Move, Plan
from lrfused.backends.work import Work
from lrfused.memory.operands import Entry
from lrfused.numerics.rounding import clamp, scalar


def apply(work: Work, decision: Plan) -> None:
    """Update everything that moves."""
    for index, move in decision.moves.items():
        entry, gradient = work.entries[index], work.gradients[index]
        group, options = decision.groups[entry.group], work.groups[entry.group]
        g = gradient_of(work, index)
        g = g * torch.stack([scalar(f, g) for f in move.pre_scale])[:, None]
        if options.value_clip:
            g = clamp(g, scalar(group.clip_bound, g))
        g = g * torch.stack([scalar(f, g) for f in move.post_scale])[:, None]
        g = g.reshape(-1)
        if work.options.write_grads:
            gradient.flat.copy_(-g if options.maximize else g)
        update(work, g, entry, move)


def update(work: Work, g: Tensor, entry: Entry, move: Move) -> None:
    """The rule's update, in the compute type."""
    operands = used_operands(work, entry)
    scalars = SimpleNamespace(**{name: scalar(value, g) for name, value in move.scalars.items()})
    state = [operand.flat.to(g.dtype) for operand in operands]
    p, state = work.rule.update(g, entry.p.flat.to(g.dtype), state, scalars)
    for operand, value in zip((entry.p, *operands), (p, *state), strict=True):
        operand.flat.copy_(value)
