"""SGD with momentum: its operand, its scalars, its update."""

from typing import Any

import torch
from torch import Tensor

from lrfused.rules.operand import StateOperand
from lrfused.rules.rule import CarriedNumber, UpdateRule
from lrfused.rules.symbols import Symbols, decay_factor
from lrfused.schedules import Schedule, select
from lrfused.settings.options import DecayMode, GroupOptions, Source
from lrfused.settings.slots import Range, Slot

# Unused without momentum.
_OF_THE_BUFFER = ("buffer_decay", "buffer_gain", "from_buffer", "mode")

# What the direction is made of, Nesterov's being of both; without momentum the buffer is unchanged.
BUFFER, BUFFER_AND_GRADIENT, GRADIENT = 0.0, 1.0, 2.0


def _expressions(x: Symbols, options: GroupOptions) -> dict[str, Schedule | float]:
    # Both also serve as conditions: momentum != 0, and 1 once the buffer was written.
    momentum, written = x.momentum, x.buffer_written
    first: dict[str, Schedule | float] = {
        "decay": decay_factor(x, options),
        "l2": x.weight_decay if options.decay_mode == DecayMode.L2 else 0.0,
        "lr": x.lr,
    }
    if not options.of_rule["momentum"]:
        unused = dict.fromkeys(_OF_THE_BUFFER, 0.0)
        return {**first, **unused, "buffer_written": written}
    nesterov = options.of_rule["nesterov"]
    return {
        **first,
        # The buffer's first gradient is not damped.
        "buffer_decay": select(written, momentum, 0.0),
        "buffer_gain": select(written, x.one - x.dampening, x.one),
        "from_buffer": momentum if nesterov else select(momentum, x.one, 0.0),
        "mode": select(momentum, BUFFER_AND_GRADIENT if nesterov else BUFFER, GRADIENT),
        "buffer_written": select(momentum, x.one, written),
    }


def _term(x: Tensor, factor: Tensor) -> Tensor:
    """x * factor, and 0 for a factor of 0 even if x is inf or nan."""
    return torch.where(factor == 0.0, torch.zeros_like(x), x * factor)


def _update(g: Tensor, p: Tensor, state: list[Tensor], r: Any) -> tuple[Tensor, list[Tensor]]:
    """torch.optim.SGD's formulas, in the order of csrc/rules/sgd.h."""
    decayed = p * r.decay
    direction = g + _term(p, r.l2)
    if state:
        updated = _term(state[0], r.buffer_decay) + direction * r.buffer_gain
        buffer = torch.where(r.mode == GRADIENT, state[0], updated)
        of_gradient = torch.where(r.mode == BUFFER, torch.zeros_like(direction), direction)
        direction = _term(buffer, r.from_buffer) + of_gradient
        state = [buffer]
    return decayed - direction * r.lr, state


def _ranges(options: GroupOptions) -> dict[Slot, Range]:
    # A number may be anything in torch, once the constructor has checked the defaults.
    if not options.of_rule["nesterov"]:
        return {}
    narrower = {Slot.MOMENTUM: Range.POSITIVE, Slot.DAMPENING: Range.ZERO}
    scheduled = [s for s in narrower if options.of_rule[s.name.lower()] == Source.SCHEDULE]
    return {slot: narrower[slot] for slot in scheduled}


SGD = UpdateRule(
    name="sgd",
    operands=(StateOperand("buffer", "momentum_buffer", lambda o: bool(o.of_rule["momentum"])),),
    hyperparameters=(Slot.LR, Slot.MOMENTUM, Slot.DAMPENING, Slot.WEIGHT_DECAY),
    scalars=("decay", "l2", *_OF_THE_BUFFER, "lr"),
    expressions=_expressions,
    update=_update,
    # An unwritten buffer holds zeros, so whether it was written matters only for dampening.
    carried=(
        CarriedNumber(
            "buffer_written",
            "lrfused_buffer_written",
            lambda o: bool(o.of_rule["dampening"]),
            0.0,
            recovered=1.0,
        ),
    ),
    switches=("nesterov",),
    presence=(Slot.MOMENTUM, Slot.DAMPENING),
    ranges=_ranges,
    decay_modes=(DecayMode.L2, DecayMode.LR, DecayMode.INDEPENDENT, DecayMode.LR_RATIO),
    counts=False,
)
