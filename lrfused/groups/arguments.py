"""The arguments of optimizer and groups, checked and turned into options and sources."""

import math
from typing import Any, NamedTuple

from torch import Tensor

from lrfused.schedules import Schedule
from lrfused.schedules.check import boolean, nonnegative, one_of, positive, whole
from lrfused.settings.cells import BETAS, IN_GROUPS, Value, argument_name, as_number, pair
from lrfused.settings.hints import refuse_what_is_no_number
from lrfused.settings.loss_scale import LossScale
from lrfused.settings.options import (
    Agc,
    DecayMode,
    GroupOptions,
    Nonfinite,
    Options,
)
from lrfused.settings.slots import Slot

# Keys of a parameter group that torch does not know; they are held outside param_groups.
GROUP_ARGUMENTS = (
    "clip_value",
    "agc",
    "agc_by",
    "weight_decay_mode",
    "peak_lr",
    "bias_correction",
    "start_step",
)
GROUP_KEYS = ("lr", "betas", "eps", "weight_decay", "lr_scale", *GROUP_ARGUMENTS)


class Group(NamedTuple):
    """What the arguments of a group come to; ``shown`` is what torch's group holds of them."""

    options: GroupOptions
    sources: dict[Slot, Value]
    shown: dict[str, Any]


def group(arguments: dict[str, Any], max_grad_norm: Any) -> Group:
    """A group's arguments, checked.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of its range.
    """
    sources = _sources(arguments, max_grad_norm)
    options = _options(arguments)
    shown = _host_numbers(sources, options.start_step)
    if isinstance(arguments["lr"], Tensor):
        shown["lr"] = arguments["lr"]
    return Group(options, sources, shown)


def _source(name: str, value: Any, *, infinite: bool = False, below_one: bool = False) -> Value:
    """A hyperparameter: a Schedule, a one-element Tensor, or a number; values are checked."""

    def number(name: str, value: Any) -> float:
        checked = nonnegative(name, value)
        if below_one and checked >= 1.0:
            raise ValueError(f"{name}: must be less than 1, got {value}")
        return checked

    if isinstance(value, Schedule):
        return _with_unique_names(name, value)
    value = as_number(value)
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"{name}: a Tensor must have one element, got shape {tuple(value.shape)}"
            )
        number(name, float(value))
        return value
    if infinite and isinstance(value, float) and value == math.inf:
        return value
    refuse_what_is_no_number(name, value)
    return number(name, value)


def _with_unique_names(name: str, schedule: Schedule) -> Schedule:
    """A checkpoint tells a schedule's inputs apart by their names."""
    names = [node._payload[1] for node in schedule.inputs]
    tensors = {id(node._payload[0]) for node in schedule.inputs}
    if len(set(names)) != len(tensors):
        raise ValueError(f"{name}: two inputs of the schedule have one name, among {names}")
    return schedule


def _sources(arguments: dict[str, Any], max_grad_norm: Any) -> dict[Slot, Value]:
    """Where each hyperparameter of a group comes from; limits that are None are left out."""
    try:
        betas = pair(arguments["betas"])
    except (TypeError, ValueError):
        raise ValueError(f"betas: must be a pair, got {arguments['betas']!r}") from None
    sources: dict[Slot, Value] = {
        Slot.LR: _source("lr", arguments["lr"]),
        Slot.WEIGHT_DECAY: _source("weight_decay", arguments["weight_decay"]),
        Slot.BETA1: _source("betas[0]", betas[0], below_one=True),
        Slot.BETA2: _source("betas[1]", betas[1], below_one=True),
        Slot.EPS: _source("eps", arguments["eps"]),
    }
    limits = {
        Slot.CLIP_VALUE: arguments["clip_value"],
        Slot.AGC: arguments["agc"],
        Slot.MAX_GRAD_NORM: max_grad_norm,
    }
    for slot, value in limits.items():
        if value is not None:
            sources[slot] = _source(slot.name.lower(), value, infinite=True)
    return sources


def _host_numbers(sources: dict[Slot, Value], start_step: int) -> dict[str, Any]:
    """The host numbers that stand for a group's values at step 0.

    Raises:
        ValueError: the group would be updated with a number that torch does not take.
    """
    numbers = {}
    for slot in IN_GROUPS:
        source, name = sources[slot], argument_name(slot)
        numbers[slot] = value = float(source(0) if isinstance(source, Schedule) else source)
        if start_step == 0 and not (value >= 0.0 and (slot not in BETAS or value < 1.0)):
            rule = "in [0, 1)" if slot in BETAS else "0 or greater"
            raise ValueError(f"{name}: the schedule is {value} at step 0, it must be {rule}")
    return {
        "lr": numbers[Slot.LR],
        "betas": (numbers[Slot.BETA1], numbers[Slot.BETA2]),
        "eps": numbers[Slot.EPS],
        "weight_decay": numbers[Slot.WEIGHT_DECAY],
    }


def _options(arguments: dict[str, Any]) -> GroupOptions:
    """The options of a group; amsgrad and maximize stay in torch's group."""
    mode = one_of("weight_decay_mode", arguments["weight_decay_mode"], _names(DecayMode))
    agc_by = one_of("agc_by", arguments["agc_by"], ("unit", "tensor"))
    correction = one_of("bias_correction", arguments["bias_correction"], ("power", "product"))
    return GroupOptions(
        decay_mode=DecayMode[mode.upper()],
        value_clip=arguments["clip_value"] is not None,
        agc=Agc.OFF if arguments["agc"] is None else Agc[agc_by.upper()],
        start_step=whole("start_step", arguments["start_step"], minimum=0, maximum=2**53),
        peak_lr=_peak_lr(arguments["peak_lr"], arguments["lr"], mode),
        of_rule={"amsgrad": False, "bias_correction": correction},
    )


def _peak_lr(peak_lr: Any, lr: Any, mode: str) -> float:
    if peak_lr is not None:
        return positive("peak_lr", peak_lr)
    if mode != "lr_ratio":
        return 1.0
    if isinstance(lr, (Schedule, Tensor)):
        raise ValueError(
            "peak_lr: must be given with weight_decay_mode='lr_ratio' when lr is a "
            f"{type(lr).__name__}"
        )
    return positive("lr", lr)


def optimizer_options(
    max_grad_norm: Any,
    norm_type: Any,
    nonfinite: Any,
    accumulation_steps: Any,
    loss_scale: LossScale | float | str | None,
    advance_schedule_on_skip: bool,
    write_grads: bool,
    always_measure: bool,
    sharded: bool | None,
) -> Options:
    """The options of the optimizer."""
    if norm_type not in (2, 2.0, math.inf):
        raise ValueError(f"norm_type: must be 2.0 or inf, got {norm_type!r}")
    policy = one_of("nonfinite", nonfinite, _names(Nonfinite))
    return Options(
        clip_norm=max_grad_norm is not None,
        infinity_norm=norm_type == math.inf,
        nonfinite=Nonfinite[policy.upper()],
        accumulation_steps=whole("accumulation_steps", accumulation_steps, minimum=1),
        loss_scale=LossScale.of(loss_scale),
        advance_schedule_on_skip=boolean("advance_schedule_on_skip", advance_schedule_on_skip),
        write_grads=boolean("write_grads", write_grads),
        always_measure=boolean("always_measure", always_measure),
        sharded=None if sharded is None else boolean("sharded", sharded),
    )


def _names(enumeration: Any) -> tuple[str, ...]:
    return tuple(member.name.lower() for member in enumeration)
