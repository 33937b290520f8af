"""Schedules: arithmetic on the step, compiled to short programs that run on the device.

A schedule is a pure function of the count of completed updates. The named ones are short
compositions of the functions below; a new one is one more function.
"""

from lrfused.schedules.batch_size import scale_lr, warmup_steps_for_batch
from lrfused.schedules.compensation import compensated_decay
from lrfused.schedules.cycles import cosine_restarts, exp_range, triangular, triangular2
from lrfused.schedules.decays import inverse_sqrt, multi_step, noam, rex, step_decay
from lrfused.schedules.expression import Schedule, step
from lrfused.schedules.from_torch import from_torch
from lrfused.schedules.functions import (
    cos,
    equal,
    exp,
    floor,
    less,
    less_equal,
    log,
    maximum,
    minimum,
    select,
    sqrt,
)
from lrfused.schedules.leaves import from_function, input, table
from lrfused.schedules.onecycle import one_cycle, one_cycle_momentum
from lrfused.schedules.phases import join, per_round
from lrfused.schedules.ramps import constant, cosine, exponential, linear, polynomial
from lrfused.schedules.stability import minimum_warmup_steps
from lrfused.schedules.warmups import warmup, warmup_constant, warmup_cosine, warmup_linear, wsd

__all__ = [
    "Schedule",
    "compensated_decay",
    "constant",
    "cos",
    "cosine",
    "cosine_restarts",
    "equal",
    "exp",
    "exp_range",
    "exponential",
    "floor",
    "from_function",
    "from_torch",
    "input",
    "inverse_sqrt",
    "join",
    "less",
    "less_equal",
    "linear",
    "log",
    "maximum",
    "minimum",
    "minimum_warmup_steps",
    "multi_step",
    "noam",
    "one_cycle",
    "one_cycle_momentum",
    "per_round",
    "polynomial",
    "rex",
    "scale_lr",
    "select",
    "sqrt",
    "step",
    "step_decay",
    "table",
    "triangular",
    "triangular2",
    "warmup",
    "warmup_constant",
    "warmup_cosine",
    "warmup_linear",
    "warmup_steps_for_batch",
    "wsd",
]
