"""Checks the states in a checkpoint: operands, counts, carried numbers."""

from functools import lru_cache
from itertools import chain
from typing import Any

from torch import Tensor

from lrfused.engine.recovery import Recovered
from lrfused.memory.checks import check_moment
from lrfused.rules import RULES, UpdateRule
from lrfused.rules.operand import always as unconditional
from lrfused.settings.cells import number_or_nan
from lrfused.state.masks import KEY as MASK
from lrfused.state.operands import own_operands_in, widened
from lrfused.state.step_counts import Numbers, States, carried_in, carried_keys, is_count

GroupList = list[dict[str, Any]]


def check_states(
    rule: UpdateRule, groups: GroupList, saved: GroupList, states: dict[Any, Any]
) -> dict[Any, Any]:
    """The states by parameter; keys of no parameter are kept unchanged, as torch does."""
    keys = list(chain.from_iterable(g["params"] for g in saved))
    places = dict(zip(keys, chain.from_iterable(g["params"] for g in groups), strict=True))
    if len(places) != len(keys):
        raise ValueError(f"state_dict: a parameter stands twice in the groups: {keys!r:.80}")
    checked: dict[Any, Any] = {}
    for key, state in states.items():
        if key in places:
            checked[places[key]] = _check_state(rule, key, places[key], state)
        elif isinstance(key, int):
            raise ValueError(f"state_dict: state of {key!r:.40} belongs to no parameter")
        else:
            checked[key] = state
    return checked


def _check_state(rule: UpdateRule, key: Any, param: Tensor, state: Any) -> dict[str, Any]:
    """The checked state of a parameter, with tensors on its device."""
    if not isinstance(state, dict):
        raise ValueError(f"state_dict: state of parameter {key!r:.40} must be a dictionary")
    if not state:
        return {}
    if state.keys() == {MASK}:
        return dict(state)
    if wrong := _wrong_keys(rule, frozenset(state)):
        raise ValueError(f"state_dict: state of parameter {key} {wrong}")
    checked: dict[str, Any] = {"step": _count(key, state["step"])} if rule.counts else {}
    always, state_keys = _needed(rule), rule.state_keys
    for name, value in state.items():
        if name in state_keys and value is None and name not in always:
            continue  # torch's SGD stores None for a missing buffer
        if name in state_keys:
            device = value.device if isinstance(value, Tensor) else param.device
            check_moment(f"state_dict: state of parameter {key}: {name}", value, param, device)
            value = widened(rule, name, value)
        if name not in checked:
            moves = isinstance(value, Tensor) and name != MASK  # a mask is not checked yet
            checked[name] = value.to(param.device) if moves else value
    return checked


@lru_cache(maxsize=64)  # most parameters have the same keys
def _wrong_keys(rule: UpdateRule, keys: frozenset[Any]) -> str:
    """What is wrong with the keys of a state; empty if they fit the rule."""
    if missing := (_needed(rule) | ({"step"} if rule.counts else set())) - keys:
        return f"lacks {sorted(missing)}"
    nearest = max(RULES, key=lambda r: (len(keys & set(r.keys)), r is rule))
    if nearest is rule:
        return ""
    return (
        f"has {sorted(keys & set(nearest.keys))}: it is that of another optimizer, this one is "
        f"{rule.name!r}"
    )


@lru_cache(maxsize=64)
def _needed(rule: UpdateRule) -> frozenset[str]:
    """The operands that every state of this rule has."""
    return frozenset(op.key for op in rule.operands if op.is_used is unconditional)


def _count(key: Any, step: Any) -> float:
    count = number_or_nan(step)
    if not is_count(count) or count != int(count):
        raise ValueError(f"state_dict: step of parameter {key} must be a count, got {step!r:.80}")
    return count


def counts_in(states: States, groups: GroupList) -> list[int]:
    """The count of each parameter."""
    params = (param for group in groups for param in group["params"])
    return [int(states.get(param, {}).get("step", 0)) for param in params]


def carried_numbers(
    rule: UpdateRule,
    states: States,
    groups: GroupList,
    counts: list[int],
    recovered: Recovered,
) -> list[Numbers]:
    """The carried numbers of each parameter, which are removed from the states."""
    numbers = []
    params = [(g, param) for g, group in enumerate(groups) for param in group["params"]]
    for (g, param), count in zip(params, counts, strict=True):
        state = states.get(param, {})
        carried = {key: state.pop(key) for key in carried_keys(rule) if key in state}
        operands = [operand for _, operand in own_operands_in(rule, state)]
        try:
            found = carried_in(rule, carried, count, operands)
        except ValueError as error:
            raise ValueError(f"state_dict: {error}") from error
        numbers.append(recovered(g, count, bool(operands)) if found is None else found)
    return numbers
