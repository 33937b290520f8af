"""Lion: its operand, its scalars, its update."""

from typing import Any

import torch
from torch import Tensor

from lrfused.rules.operand import StateOperand
from lrfused.rules.rule import UpdateRule
from lrfused.rules.symbols import Symbols, decay_factor
from lrfused.schedules import Schedule
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot


def _expressions(x: Symbols, options: GroupOptions) -> dict[str, Schedule]:
    return {
        "decay": decay_factor(x, options),
        "beta1": x.beta1,
        "one_minus_beta1": x.one - x.beta1,
        "beta2": x.beta2,
        "one_minus_beta2": x.one - x.beta2,
        "lr": x.lr,
    }


def _sign(x: Tensor) -> Tensor:
    """torch.sign, except that sign(nan) is nan."""
    return torch.where(torch.isnan(x), x, torch.sign(x))


def _update(g: Tensor, p: Tensor, state: list[Tensor], r: Any) -> tuple[Tensor, list[Tensor]]:
    """Algorithm 2 of arXiv 2302.06675, in the order of csrc/rules/lion.h."""
    (m,) = state
    decayed = p * r.decay
    direction = _sign(m * r.beta1 + g * r.one_minus_beta1)
    m = m * r.beta2 + g * r.one_minus_beta2
    return decayed - direction * r.lr, [m]


LION = UpdateRule(
    name="lion",
    operands=(StateOperand("m", "exp_avg"),),
    hyperparameters=(Slot.LR, Slot.BETA1, Slot.BETA2, Slot.WEIGHT_DECAY),
    scalars=("decay", "beta1", "one_minus_beta1", "beta2", "one_minus_beta2", "lr"),
    expressions=_expressions,
    update=_update,
    counts=False,
)
