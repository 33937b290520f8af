"""The reference: measure, plan and apply in plain PyTorch, slow and obvious.

Every other backend is tested against it bit for bit. One torch operation is one rounding, always
with 0-dim tensors of the compute type; scalars are float64 throughout plan and rounded once,
where they meet the tensors. Compute type: float64 for float64 parameters, float32 for all others;
gradients are converted to it before anything is done with them.
"""

import numpy as np

from lrfused.backends.reference import apply, measure, plan, riders
from lrfused.backends.work import Work


def step(work: Work) -> None:
    """One optimizer step: measure, plan, apply."""
    with np.errstate(all="ignore"):  # IEEE semantics: infinities and nan are values
        groups = plan.begin(work)
        if groups is None:
            return
        decision = plan.plan(work, groups, measure.measure(work, groups))
    if decision.proceed:
        apply.apply(work, decision)
        riders.ride(work, decision)
    if work.options.zero_grads and not decision.refused:
        riders.zero_gradients(work)
