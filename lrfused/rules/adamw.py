"""AdamW: its operands, its scalars, its update."""

from typing import Any

import torch
from torch import Tensor

from lrfused.numerics.rounding import square_root
from lrfused.rules.operand import StateOperand
from lrfused.rules.rule import CarriedNumber, UpdateRule
from lrfused.rules.symbols import Symbols, decay_factor
from lrfused.schedules import Schedule, sqrt
from lrfused.settings.options import GroupOptions
from lrfused.settings.slots import Slot


def _by_product(options: GroupOptions) -> bool:
    return bool(options.of_rule["bias_correction"] == "product")


def _expressions(x: Symbols, options: GroupOptions) -> dict[str, Schedule]:
    # With bias_correction="power" the products of betas are unused and stay unchanged.
    product1, product2 = x.beta1_product, x.beta2_product
    if _by_product(options):
        product1, product2 = product1 * x.beta1, product2 * x.beta2
        correction1, correction2 = x.one - product1, x.one - product2
    else:
        correction1, correction2 = x.one - x.beta1**x.count, x.one - x.beta2**x.count
    return {
        "decay": decay_factor(x, options),
        "beta1": x.beta1,
        "one_minus_beta1": x.one - x.beta1,
        "beta2": x.beta2,
        "one_minus_beta2": x.one - x.beta2,
        "eps": x.eps,
        "step_size": x.lr / correction1,
        "inv_sqrt_bias_correction2": x.one / sqrt(correction2),
        "beta1_product": product1,
        "beta2_product": product2,
    }


def _update(g: Tensor, p: Tensor, state: list[Tensor], r: Any) -> tuple[Tensor, list[Tensor]]:
    """torch.optim.AdamW's formulas, in the order of csrc/rules/adamw.h."""
    m, v, *vmax = state
    p = p * r.decay
    m = m * r.beta1 + g * r.one_minus_beta1
    v = v * r.beta2 + (g * r.one_minus_beta2) * g
    second = v
    if vmax:
        second = torch.where((v > vmax[0]) | torch.isnan(v), v, vmax[0])
        vmax = [second]
    denominator = square_root(second) * r.inv_sqrt_bias_correction2 + r.eps
    return p - (m * r.step_size) / denominator, [m, v, *vmax]


ADAMW = UpdateRule(
    name="adamw",
    operands=(
        StateOperand("m", "exp_avg"),
        StateOperand("v", "exp_avg_sq"),
        StateOperand("vmax", "max_exp_avg_sq", lambda options: options.of_rule["amsgrad"]),
    ),
    hyperparameters=(Slot.LR, Slot.BETA1, Slot.BETA2, Slot.EPS, Slot.WEIGHT_DECAY),
    scalars=(
        "decay",
        "beta1",
        "one_minus_beta1",
        "beta2",
        "one_minus_beta2",
        "eps",
        "step_size",
        "inv_sqrt_bias_correction2",
    ),
    expressions=_expressions,
    update=_update,
    carried=(
        CarriedNumber("beta1_product", "lrfused_beta1_product", _by_product, 1.0, slot=Slot.BETA1),
        CarriedNumber("beta2_product", "lrfused_beta2_product", _by_product, 1.0, slot=Slot.BETA2),
    ),
    switches=("amsgrad",),
    arguments={"bias_correction": ("power", "product")},
)
