"""Every named schedule once: two settings that differ in numbers alone, and its arguments.

A new named schedule needs a row here (test_named_list.py says so), and then has its size, shape,
arguments, copies and storage tested.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from lrfused import schedules as S

# What an argument must be; test_bad_arguments.py has the wrong values of each.
VALUE = "a finite number >= 0"
POSITIVE = "a finite number > 0"
LENGTH = "a whole number >= 1"
LENGTH_OR_NONE = "a whole number >= 0"
SHAPE = "one of a few words"
START = "a finite number >= 0 or '1/n'"
SCHEDULE = "a Schedule"


class Named(NamedTuple):
    make: Callable[..., S.Schedule]
    one: dict[str, Any]
    other: dict[str, Any]
    kinds: dict[str, str]


FIRST = {"value": 0.75, "start": 0.5, "end": 0.125, "peak": 0.75, "low": 0.25, "high": 0.875}
SECOND = {"value": 1.5, "start": 0.25, "end": 1.0, "peak": 1.25, "low": 0.5, "high": 1.0}
RAMP = {"start": VALUE, "end": VALUE, "steps": LENGTH}
WARMED = {"peak": VALUE, "warmup_steps": LENGTH_OR_NONE, "start": START}
CYCLE = {"total_steps": LENGTH, "pct_start": POSITIVE, "shape": SHAPE}
WAVE = {"low": VALUE, "high": VALUE, "up_steps": LENGTH, "down_steps": LENGTH}


def _row(make: Callable[..., S.Schedule], kinds: dict[str, str], one: dict, other: dict) -> Named:
    """The settings completed by the usual values of those arguments that they leave out."""
    return Named(
        make,
        {**{k: FIRST[k] for k in kinds if k in FIRST}, **one},
        {**{k: SECOND[k] for k in kinds if k in SECOND}, **other},
        kinds,
    )


ROWS = {
    "constant": _row(S.constant, {"value": VALUE}, {}, {}),
    "linear": _row(S.linear, RAMP, {"steps": 120}, {"steps": 7}),
    "cosine": _row(S.cosine, RAMP, {"steps": 120}, {"steps": 7}),
    "exponential": _row(
        S.exponential,
        {**RAMP, "start": POSITIVE, "end": POSITIVE},
        {"steps": 120},
        {"steps": 7},
    ),
    "polynomial": _row(
        S.polynomial,
        {**RAMP, "power": POSITIVE},
        {"steps": 120, "power": 2.5},
        {"steps": 7, "power": 1.0},
    ),
    "inverse_sqrt": _row(
        S.inverse_sqrt,
        {"peak": VALUE, "warmup_steps": LENGTH},
        {"warmup_steps": 120},
        {"warmup_steps": 1},
    ),
    "noam": _row(
        S.noam,
        {"model_size": LENGTH, "warmup_steps": LENGTH, "factor": VALUE},
        {"model_size": 96, "warmup_steps": 120, "factor": 2.0},
        {"model_size": 1, "warmup_steps": 7, "factor": 0.5},
    ),
    "rex": _row(S.rex, {"peak": VALUE, "steps": LENGTH}, {"steps": 120}, {"steps": 7}),
    "step_decay": _row(
        S.step_decay,
        {"value": VALUE, "factor": VALUE, "every": LENGTH},
        {"factor": 0.5, "every": 50},
        {"factor": 0.75, "every": 3},
    ),
    "multi_step": _row(
        S.multi_step,
        {"value": VALUE, "factor": VALUE},
        {"factor": 0.5, "milestones": [20, 60, 120]},
        {"factor": 0.75, "milestones": [1, 2, 3]},
    ),
    "warmup": _row(
        S.warmup,
        {"schedule": SCHEDULE, "steps": LENGTH_OR_NONE, "start": START, "shape": SHAPE},
        {"schedule": S.cosine(0.5, 0.125, 99), "steps": 120},
        {"schedule": S.cosine(1.0, 0.25, 7), "steps": 3},
    ),
    "warmup_cosine": _row(
        S.warmup_cosine,
        {**WARMED, "total_steps": LENGTH, "end": VALUE},
        {"warmup_steps": 40, "total_steps": 120},
        {"warmup_steps": 3, "total_steps": 20},
    ),
    "warmup_linear": _row(
        S.warmup_linear,
        {**WARMED, "total_steps": LENGTH, "end": VALUE},
        {"warmup_steps": 40, "total_steps": 120},
        {"warmup_steps": 3, "total_steps": 20},
    ),
    "warmup_constant": _row(S.warmup_constant, WARMED, {"warmup_steps": 120}, {"warmup_steps": 3}),
    "wsd": _row(
        S.wsd,
        {
            **WARMED,
            "stable_steps": LENGTH_OR_NONE,
            "decay_steps": LENGTH,
            "end": VALUE,
            "shape": SHAPE,
        },
        {"warmup_steps": 110, "stable_steps": 100, "decay_steps": 120},
        {"warmup_steps": 3, "stable_steps": 2, "decay_steps": 1},
    ),
    "one_cycle": _row(
        S.one_cycle,
        {**CYCLE, "peak": VALUE, "div_factor": POSITIVE, "final_div_factor": POSITIVE},
        {"total_steps": 120, "pct_start": 0.25},
        {"total_steps": 20, "pct_start": 0.375},
    ),
    "one_cycle_momentum": _row(
        S.one_cycle_momentum,
        {**CYCLE, "low": VALUE, "high": VALUE},
        {"total_steps": 120, "pct_start": 0.25},
        {"total_steps": 20, "pct_start": 0.375},
    ),
    "triangular": _row(
        S.triangular,
        WAVE,
        {"up_steps": 100, "down_steps": 60},
        {"up_steps": 3, "down_steps": 1},
    ),
    "triangular2": _row(
        S.triangular2,
        WAVE,
        {"up_steps": 100, "down_steps": 60},
        {"up_steps": 3, "down_steps": 1},
    ),
    "exp_range": _row(
        S.exp_range,
        {**WAVE, "gamma": POSITIVE},
        {"gamma": 0.5, "up_steps": 100, "down_steps": 60},
        {"gamma": 1.0, "up_steps": 3, "down_steps": 1},
    ),
    "cosine_restarts": _row(
        S.cosine_restarts,
        {"start": VALUE, "end": VALUE, "period": LENGTH, "factor": LENGTH, "cycles": LENGTH},
        {"period": 50, "factor": 3, "cycles": 4},
        {"period": 1, "factor": 2, "cycles": 4},
    ),
    "join": _row(
        S.join,
        {},
        {
            "schedules": [S.linear(0.0, 0.5, 9), S.cosine(0.5, 0.25, 99), S.constant(0.25)],
            "boundaries": [9, 108],
        },
        {
            "schedules": [S.linear(1.0, 0.5, 2), S.cosine(2.5, 0.0, 5), S.constant(0.0)],
            "boundaries": [1, 3],
        },
    ),
    "per_round": _row(
        S.per_round,
        {"schedule": SCHEDULE, "local_steps": LENGTH},
        {"schedule": S.cosine(0.5, 0.125, 99), "local_steps": 120},
        {"schedule": S.cosine(1.0, 0.25, 7), "local_steps": 1},
    ),
    "scale_lr": _row(
        S.scale_lr,
        {"batch": LENGTH, "base": LENGTH, "rule": SHAPE},
        {"lr": S.cosine(0.5, 0.125, 99), "batch": 120, "base": 40},
        {"lr": S.cosine(1.0, 0.25, 7), "batch": 3, "base": 20, "rule": "sqrt"},
    ),
    "compensated_decay": _row(
        S.compensated_decay,
        {
            **{"weight_decay": VALUE, "warmup_steps": LENGTH_OR_NONE, "total_steps": LENGTH},
            "warmup_decay": VALUE,
        },
        {
            **{"lr": S.warmup_constant(0.5, 40), "warmup_steps": 40, "total_steps": 120},
            **{"weight_decay": 0.25, "warmup_decay": 0.125, "reference_lr": 0.25},
        },
        {
            **{"lr": S.warmup_constant(0.25, 3), "warmup_steps": 3, "total_steps": 20},
            **{"weight_decay": 0.5, "warmup_decay": 0.0, "reference_lr": 0.5},
        },
    ),
}

# The names of the module that are not schedules by themselves: leaves, operations, conversion,
# lengths.
BUILDING_BLOCKS = {
    *("minimum_warmup_steps", "warmup_steps_for_batch"),
    *("Schedule", "step", "input", "table", "from_function", "from_torch"),
    *("cos", "equal", "exp", "floor", "less", "less_equal", "log"),
    *("maximum", "minimum", "select", "sqrt"),
}
