"""The state operands of a parameter, under torch's keys in the optimizer's state."""

from typing import Any

import torch
from torch import Tensor

from lrfused.rules import UpdateRule
from lrfused.settings.options import GroupOptions


def allocate(rule: UpdateRule, options: GroupOptions, states: Any, param: Tensor) -> None:
    """Allocate the missing operands of a parameter, as torch would.

    A parameter that needs none gets no state.
    """
    if not rule.has_state(options):
        return
    state = states[param]
    for key in rule.keys[: rule.operands_used(options)]:
        if state.get(key) is None:
            state[key] = torch.zeros_like(param, memory_format=torch.preserve_format).detach()


def operands_in(rule: UpdateRule, state: dict[str, Any]) -> list[tuple[str, Any]]:
    """Keys and values of the operands that exist; torch's SGD stores None for a missing one."""
    return [(key, state[key]) for key in rule.keys if state.get(key) is not None]
