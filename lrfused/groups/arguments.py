"""Checks the arguments of optimizers and groups and turns them into options and sources."""

import math
import numbers
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from lrfused.rules import UpdateRule
from lrfused.schedules import Schedule
from lrfused.schedules.check import finite, nonnegative, one_of, positive, whole
from lrfused.settings.cells import Settings, Value, as_number, read_group
from lrfused.settings.hints import refuse_what_is_no_number
from lrfused.settings.options import Agc, DecayMode, GroupOptions, Source
from lrfused.settings.slots import OPTIONAL, Range, Slot, is_usable

# Arguments of a parameter group that torch does not have; they are kept outside param_groups.
COMMON_ARGUMENTS = (
    "clip_value",
    "agc",
    "agc_by",
    "ema_decay",
    "ema_update_every",
    "weight_decay_mode",
    "peak_lr",
    "start_step",
)


def group_arguments(rule: UpdateRule) -> tuple[str, ...]:
    """The arguments of this optimizer's groups that torch does not have."""
    return (*COMMON_ARGUMENTS, *rule.arguments)


def group_keys(rule: UpdateRule) -> tuple[str, ...]:
    """All keys that are read from a group."""
    in_groups = dict.fromkeys(slot.key for slot in rule.hyperparameters)
    return (*in_groups, *rule.switches, "lr_scale", *group_arguments(rule))


class Group(NamedTuple):
    """A group's checked arguments; ``shown`` are the values that torch's dictionary gets."""

    options: GroupOptions
    sources: dict[Slot, Value]
    shown: dict[str, Any]


def group(rule: UpdateRule, arguments: dict[str, Any], max_grad_norm: Any) -> Group:
    """Check a group's arguments.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of its range.
    """
    sources = _sources(rule, arguments, max_grad_norm)
    options = _options(rule, arguments, sources)
    shown = _host_numbers(rule, sources, options)
    if isinstance(arguments["lr"], Tensor):
        shown["lr"] = arguments["lr"]
    return Group(options, sources, shown)


def _source(slot: Slot, value: Any) -> Value:
    """Check a hyperparameter: a Schedule, a one-element Tensor, or a number in its range."""
    if type(value) is float and 0.0 <= value < 1.0:
        return value  # in every range, and what most groups have
    name = slot.argument

    def number(value: Any) -> float:
        checked = finite(name, value) if slot.may_be_negative else nonnegative(name, value)
        if slot.range == Range.BELOW_ONE and checked >= 1.0:
            raise ValueError(f"{name}: must be less than 1, got {value}")
        if slot.range == Range.UNIT and checked > 1.0:
            raise ValueError(f"{name}: must be at most 1, got {value}")
        return checked

    if isinstance(value, Schedule):
        return _with_unique_names(name, value)
    value = as_number(value)
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"{name}: a Tensor must have one element, got shape {tuple(value.shape)}"
            )
        number(float(value))
        return value
    if slot.range == Range.LIMIT and isinstance(value, float) and value == math.inf:
        return value
    refuse_what_is_no_number(name, value)
    return number(value)


def _with_unique_names(name: str, schedule: Schedule) -> Schedule:
    """Refuse inputs with equal names: checkpoints tell a schedule's inputs apart by name."""
    names = [node._payload[1] for node in schedule.inputs]
    tensors = {id(node._payload[0]) for node in schedule.inputs}
    if len(set(names)) != len(tensors):
        raise ValueError(f"{name}: two inputs of the schedule have one name, among {names}")
    return schedule


def _sources(rule: UpdateRule, arguments: dict[str, Any], max_grad_norm: Any) -> dict[Slot, Value]:
    """The source of each hyperparameter of a group; optional ones that are None are left out."""
    sources = {slot: _source(slot, _given(arguments, slot)) for slot in rule.hyperparameters}
    of_all = {"max_grad_norm": max_grad_norm}
    given = {
        slot: value for slot in OPTIONAL if (value := {**arguments, **of_all}[slot.key]) is not None
    }
    return {**sources, **{slot: _source(slot, value) for slot, value in given.items()}}


def _given(arguments: dict[str, Any], slot: Slot) -> Any:
    try:
        return read_group(arguments, slot)
    except (TypeError, ValueError):
        raise ValueError(f"{slot.key}: must be a pair, got {arguments[slot.key]!r}") from None


def _host_numbers(
    rule: UpdateRule, sources: dict[Slot, Value], options: GroupOptions
) -> dict[str, Any]:
    """The numbers at step 0, for torch's dictionary.

    Raises:
        ValueError: the first step would use a number that torch does not accept.
    """
    shown: dict[str, Any] = {}
    for slot in rule.hyperparameters:
        source = sources[slot]
        value = float(source(0) if isinstance(source, Schedule) else source)
        if options.start_step == 0:
            _check_first(rule, options, slot, source, value)
        shown[slot.key] = value if slot.place is None else (*shown.get(slot.key, ()), value)
    return shown


def _check_first(
    rule: UpdateRule, options: GroupOptions, slot: Slot, source: Value, value: float
) -> None:
    """Refuse a value that the first step cannot use, or that torch does not accept."""
    kind = rule.range_of(slot, options)
    is_negative = not (value >= 0.0 or slot.may_be_negative)
    if is_usable(kind, value) and not is_negative:
        return
    words = rule.range_in_words(slot, options)
    if kind == Range.FINITE and is_negative:
        words = "0 or greater"
    if isinstance(source, Schedule):
        raise ValueError(f"{slot.argument}: the schedule is {value} at step 0, it must be {words}")
    raise ValueError(f"{slot.argument}: must be {words}, got {value}")


def _options(
    rule: UpdateRule, arguments: dict[str, Any], sources: dict[Slot, Value]
) -> GroupOptions:
    """The options of a group, except maximize, which stays in torch's dictionary."""
    modes = tuple(mode.name.lower() for mode in rule.decay_modes)
    mode = one_of("weight_decay_mode", arguments["weight_decay_mode"], modes)
    agc_by = one_of("agc_by", arguments["agc_by"], ("unit", "tensor"))
    of_rule: dict[str, Any] = {
        name: one_of(name, arguments[name], choices) for name, choices in rule.arguments.items()
    }
    of_rule |= {name: bool(arguments[name]) for name in rule.switches}
    of_rule |= {slot.name.lower(): source_of(sources[slot]) for slot in rule.presence}
    return GroupOptions(
        decay_mode=DecayMode[mode.upper()],
        value_clip=arguments["clip_value"] is not None,
        agc=Agc.OFF if arguments["agc"] is None else Agc[agc_by.upper()],
        start_step=whole("start_step", arguments["start_step"], minimum=0, maximum=2**53),
        average_every=_average_every(arguments),
        peak_lr=_peak_lr(arguments["peak_lr"], arguments["lr"], mode),
        of_rule=of_rule,
    )


def _average_every(arguments: dict[str, Any]) -> int:
    every = whole("ema_update_every", arguments["ema_update_every"], minimum=1, maximum=2**53)
    return 0 if arguments["ema_decay"] is None else every


def source_of(value: Any) -> Source:
    """The kind of a hyperparameter's value; what is no number is refused later."""
    value = as_number(value)
    if isinstance(value, numbers.Real):
        return Source.NUMBER if value != 0 else Source.ZERO
    return Source.SCHEDULE


def with_group(rule: UpdateRule, settings: Settings, group: dict[str, Any]) -> GroupOptions:
    """A group's options, updated from its dictionary, which the caller may change."""
    options = settings.options
    of_rule = {**options.of_rule, **{name: bool(group[name]) for name in rule.switches}}
    for slot in rule.presence:
        is_scheduled = settings.cells[slot].schedule is not None
        found = source_of(read_group(group, slot))
        of_rule[slot.name.lower()] = Source.SCHEDULE if is_scheduled else found
    maximize = bool(group["maximize"])
    if (options.of_rule, options.maximize) == (of_rule, maximize):
        return options
    return replace(options, of_rule=of_rule, maximize=maximize)


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
