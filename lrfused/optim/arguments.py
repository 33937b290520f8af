"""The options that all optimizers share: names, types, defaults, checks."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from torch import Tensor

from lrfused.schedules.check import boolean, one_of, whole
from lrfused.settings.cells import Value
from lrfused.settings.loss_scale import LossScale
from lrfused.settings.options import Nonfinite, Options

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack  # typing has it from Python 3.11 on


class StepOptions(TypedDict, total=False):
    """Keyword arguments of every optimizer; `FusedOptimizer` describes them."""

    max_grad_norm: Value | None
    norm_type: float
    clip_value: Value | None
    agc: Value | None
    agc_by: str
    ema_decay: Value | None
    ema_update_every: int
    masks: Mapping[Tensor, Tensor] | None
    nonfinite: str
    accumulation_steps: int
    loss_scale: LossScale | float | str | None
    advance_schedule_on_skip: bool
    peak_lr: float | None
    start_step: int
    write_grads: bool
    zero_grads: bool
    always_measure: bool
    sharded: bool | None
    amp_scaling: bool
    backend: str | dict[str, str]


DEFAULTS: StepOptions = {
    "max_grad_norm": None,
    "norm_type": 2.0,
    "clip_value": None,
    "agc": None,
    "agc_by": "unit",
    "ema_decay": None,
    "ema_update_every": 1,
    "masks": None,
    "nonfinite": "propagate",
    "accumulation_steps": 1,
    "loss_scale": None,
    "advance_schedule_on_skip": False,
    "peak_lr": None,
    "start_step": 0,
    "write_grads": False,
    "zero_grads": False,
    "always_measure": False,
    "sharded": None,
    "amp_scaling": True,
    "backend": "auto",
}
OF_GROUPS = (
    "clip_value",
    "agc",
    "agc_by",
    "ema_decay",
    "ema_update_every",
    "peak_lr",
    "start_step",
)


def takes_step_options(init: Callable[..., None]) -> Callable[..., None]:
    """List the shared options in the signature of a constructor with ``**options``."""
    own = inspect.signature(init)
    named = [p for p in own.parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
    types = inspect.get_annotations(StepOptions)
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name]
        )
        for name, default in DEFAULTS.items()
    ]
    init.__signature__ = own.replace(parameters=[*named, *shared])  # type: ignore[attr-defined]
    return init


def with_defaults(owner: str, given: StepOptions) -> dict[str, Any]:
    """All shared options, with defaults for missing ones.

    Raises:
        TypeError: an unknown option is given.
    """
    if unknown := given.keys() - DEFAULTS.keys():
        raise TypeError(f"{owner}() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    return {**DEFAULTS, **given}


def optimizer_options(chosen: dict[str, Any]) -> Options:
    """The options of the optimizer, as opposed to those of its groups.

    Raises:
        TypeError, ValueError: one of them has the wrong type or is out of its range.
    """
    norm_type, sharded = chosen["norm_type"], chosen["sharded"]
    if norm_type not in (2, 2.0, math.inf):
        raise ValueError(f"norm_type: must be 2.0 or inf, got {norm_type!r}")
    policies = tuple(member.name.lower() for member in Nonfinite)
    policy = one_of("nonfinite", chosen["nonfinite"], policies)
    flags = ("advance_schedule_on_skip", "write_grads", "zero_grads", "always_measure")
    switched = {name: boolean(name, chosen[name]) for name in flags}
    if switched["write_grads"] and switched["zero_grads"]:
        raise ValueError("zero_grads: must be False with write_grads=True, got True for both")
    if switched["zero_grads"] and not chosen["amp_scaling"]:
        raise ValueError(
            "zero_grads: must be False with amp_scaling=False: a GradScaler then does not call "
            "step() where a gradient overflows, which would stay"
        )
    return Options(
        clip_norm=chosen["max_grad_norm"] is not None,
        infinity_norm=norm_type == math.inf,
        nonfinite=Nonfinite[policy.upper()],
        accumulation_steps=whole("accumulation_steps", chosen["accumulation_steps"], minimum=1),
        loss_scale=LossScale.of(chosen["loss_scale"]),
        sharded=None if sharded is None else boolean("sharded", sharded),
        **switched,
    )
