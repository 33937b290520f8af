"""Riders: what goes along in the pass besides an update."""

from lrfused.backends.reference.arithmetic import kept_of, used_operands
from lrfused.backends.reference.plan import Plan
from lrfused.backends.work import Work
from lrfused.memory.operands import Entry
from lrfused.numerics.rounding import compute_type, scalar
from lrfused.rules.average import NOT_NOW, update_average


def ride(work: Work, decision: Plan) -> None:
    """Masks of everything that moved, then averages, also of what did not move."""
    for index in decision.moves:
        clear_masked(work, index)
    for entry in work.entries:
        weight = decision.groups[entry.group].average_weight
        if weight != NOT_NOW and not entry.is_idle:
            average(entry, weight)


def clear_masked(work: Work, index: int) -> None:
    """Masked elements of a parameter and its operands become 0, and those of written gradients."""
    entry = work.entries[index]
    kept = kept_of(entry)
    if kept is None:
        return
    written = [work.gradients[index]] if work.options.write_grads else []
    for operand in (entry.p, *used_operands(work, entry), *written):
        operand.flat.masked_fill_(~kept, 0.0)


def average(entry: Entry, weight: float) -> None:
    """Update a parameter's average, which is 0 where it is masked."""
    operand, kept = entry.average, kept_of(entry)
    assert operand is not None
    p = entry.p.flat.to(compute_type(entry.p.flat))
    operand.flat.copy_(update_average(operand.flat.to(p.dtype), p, scalar(weight, p)))
    if kept is not None:
        operand.flat.masked_fill_(~kept, 0.0)


def zero_gradients(work: Work) -> None:
    """zero_grads: every gradient becomes 0."""
    for gradient in work.gradients.values():
        gradient.flat.zero_()
