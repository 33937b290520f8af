"""The operands of a parameter's rule, under torch's keys in the optimizer's state."""

from typing import Any

import torch
from torch import Tensor

from lrfused.rules import UpdateRule
from lrfused.settings.options import GroupOptions


def allocate(rule: UpdateRule, options: GroupOptions, states: Any, param: Tensor) -> None:
    """Those that a parameter of such a group does not have yet, as torch allocates them.

    A parameter that needs none has no state either.
    """
    if not rule.has_state(options):
        return
    state = states[param]
    for key in rule.keys[: rule.operands_used(options)]:
        if state.get(key) is None:
            state[key] = torch.zeros_like(param, memory_format=torch.preserve_format).detach()


def operands_in(rule: UpdateRule, state: dict[str, Any]) -> list[tuple[str, Any]]:
    """The keys and values of the operands that there are: torch's SGD has None for none."""
    return [(key, state[key]) for key in rule.keys if state.get(key) is not None]
