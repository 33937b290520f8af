"""The state operands of a parameter, under torch's keys in the optimizer's state."""

from typing import Any

import torch
from torch import Tensor

from lrfused.rules import UpdateRule
from lrfused.settings.options import GroupOptions


def allocate(rule: UpdateRule, options: GroupOptions, states: Any, param: Tensor) -> None:
    """Allocate the missing operands of a parameter, as torch would.

    A parameter that needs none gets no state. New operands come with their carried numbers: without
    them they would count as torch's, of updates that were made.
    """
    if not rule.has_state(options):
        return
    state = states[param]
    used = rule.keys[: rule.operands_used(options)]
    made: dict[str, Tensor] = {}
    if not operands_in(rule, state):
        for carried in rule.carried:
            if carried.matters(options):
                made[carried.key] = torch.tensor(carried.initial, dtype=torch.float64, device="cpu")
    for key in used:
        if state.get(key) is None:
            made[key] = torch.zeros_like(param, memory_format=torch.preserve_format).detach()
    state.update(made)  # at once, as the caller may be interrupted anywhere


def operands_in(rule: UpdateRule, state: dict[str, Any]) -> list[tuple[str, Any]]:
    """Keys and values of the operands that exist; torch's SGD stores None for a missing one."""
    return [(key, state[key]) for key in rule.keys if state.get(key) is not None]
