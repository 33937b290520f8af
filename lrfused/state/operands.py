"""The state operands of a parameter, under their keys in the optimizer's state."""

from typing import Any

import torch
from torch import Tensor

from lrfused.rules import UpdateRule
from lrfused.rules.operand import StateOperand
from lrfused.settings.options import GroupOptions

WIDER = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.complex32: torch.complex64,
}


def allocate(rule: UpdateRule, options: GroupOptions, states: Any, param: Tensor) -> None:
    """Allocate the missing operands of a parameter, as torch would.

    A parameter that needs none gets no state. New operands come with their carried numbers: without
    them they would count as torch's, of updates that were made.
    """
    if not rule.has_state(options):
        return
    state = states[param]
    made: dict[str, Tensor] = {}
    if not own_operands_in(rule, state):
        for carried in rule.carried:
            if carried.matters(options):
                made[carried.key] = torch.tensor(carried.initial, dtype=torch.float64, device="cpu")
    for operand in rule.state_operands:
        if operand.is_used(options) and state.get(operand.key) is None:
            made[operand.key] = new_operand(operand, param)
    state.update(made)  # at once, as the caller may be interrupted anywhere


def new_operand(operand: StateOperand, param: Tensor) -> Tensor:
    """The operand of a parameter before its first update."""
    dtype = WIDER.get(param.dtype, param.dtype) if operand.widens else param.dtype
    if operand.initial == 0.0:
        return torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
    made = torch.empty_like(param, dtype=dtype, memory_format=torch.preserve_format)
    fill(made, operand.initial)
    return made


def fill(tensor: Tensor, value: float) -> None:
    """Fill a state tensor, of a complex one both parts."""
    tensor.fill_(complex(value, value) if tensor.is_complex() else value)


def widened(rule: UpdateRule, key: str, tensor: Tensor) -> Tensor:
    """A loaded operand in the dtype that it needs: torch casts state to the parameter's."""
    widens = any(operand.widens for operand in rule.state_operands if operand.key == key)
    return tensor.to(WIDER.get(tensor.dtype, tensor.dtype)) if widens else tensor


def operands_in(rule: UpdateRule, state: dict[str, Any]) -> list[tuple[str, Any]]:
    """Keys and values of the operands that exist; torch's SGD stores None for a missing one."""
    return [(key, state[key]) for key in rule.state_keys if state.get(key) is not None]


def own_operands_in(rule: UpdateRule, state: dict[str, Any]) -> list[tuple[str, Any]]:
    """The same of the rule's own operands, which show that an update was made."""
    return [(key, state[key]) for key in rule.keys if state.get(key) is not None]
