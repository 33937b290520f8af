"""UpdateRule: everything that distinguishes one optimizer from another.

Scalars are schedule expressions over a group's hyperparameters, a parameter's count of updates
(including the present one) and numbers that are carried from update to update. Plan evaluates them
like schedules, in float64; they are rounded once, where they meet a tensor. The update of one
element is written three times under one name: in csrc/rules/, in lrfused/backends/triton/rules.py,
and with torch beside the description, which is the reference.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lrfused.rules.average import AVERAGE
from lrfused.rules.operand import Condition, StateOperand
from lrfused.rules.symbols import Symbols
from lrfused.schedules import Schedule
from lrfused.schedules.bytecode import Program
from lrfused.schedules.compiler import compile_all
from lrfused.schedules.expression import as_schedule
from lrfused.settings.options import DecayMode, GroupOptions
from lrfused.settings.slots import Range, Slot

# (gradient after the prologue, parameter, operands, scalars as 0-dim tensors by name) -> (new
# parameter, new operands), all in the compute type.
Update = Callable[[Tensor, Tensor, list[Tensor], Any], tuple[Tensor, list[Tensor]]]


@dataclass(frozen=True)
class CarriedNumber:
    """A float64 of each parameter that is carried from update to update.

    ``key`` is its key in the optimizer's state, which has it when it ``matters``. Before the first
    update it is ``initial``. If a state has operands but not this number, it is the product of the
    values of ``slot`` so far, or ``recovered`` if there is no slot.
    """

    name: str
    key: str
    matters: Condition
    initial: float
    recovered: float = 0.0
    slot: Slot | None = None


@dataclass(frozen=True, eq=False)
class UpdateRule:
    """The description of an optimizer.

    ``name`` names the kernels. ``hyperparameters`` are those in parameter groups, in torch's order.
    A group uses the first ``operands_used`` operands. ``expressions`` returns the ``scalars`` and
    the carried numbers after the update. ``switches`` are keys of booleans in torch's groups,
    ``arguments`` other options of a group with their choices (the first is the default),
    ``presence`` the hyperparameters for which it matters where they come from (a `Source`); all
    three are in ``GroupOptions.of_rule``. ``ranges`` narrows ranges by options. ``counts``: the
    state shows the count, as "step".
    """

    name: str
    operands: tuple[StateOperand, ...]
    hyperparameters: tuple[Slot, ...]
    scalars: tuple[str, ...]
    expressions: Callable[[Symbols, GroupOptions], Mapping[str, Schedule | float]]
    update: Update
    carried: tuple[CarriedNumber, ...] = ()
    switches: tuple[str, ...] = ()
    arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    presence: tuple[Slot, ...] = ()
    ranges: Callable[[GroupOptions], Mapping[Slot, Range]] = lambda _: {}
    decay_modes: tuple[DecayMode, ...] = (DecayMode.LR, DecayMode.INDEPENDENT, DecayMode.LR_RATIO)
    counts: bool = True

    def __post_init__(self) -> None:
        _BY_NAME[self.name] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _find, (self.name,)

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of the rule's own operands in torch's state."""
        return tuple(operand.key for operand in self.operands)

    @functools.cached_property
    def state_operands(self) -> tuple[StateOperand, ...]:
        """The rule's own operands, then those that any rule's state may have."""
        return (*self.operands, AVERAGE)

    @functools.cached_property
    def state_keys(self) -> tuple[str, ...]:
        """The keys of all state operands in torch's state."""
        return tuple(operand.key for operand in self.state_operands)

    def operands_used(self, options: GroupOptions) -> int:
        """The number of the rule's own operands that a group with these options uses."""
        return sum(operand.is_used(options) for operand in self.operands)

    def has_state(self, options: GroupOptions) -> bool:
        """A parameter of such a group has an entry in the optimizer's state after an update."""
        return self.counts or any(operand.is_used(options) for operand in self.state_operands)

    def range_of(self, slot: Slot, options: GroupOptions) -> Range:
        """The range of a hyperparameter in a group with these options."""
        return self.ranges(options).get(slot, slot.range)

    def range_in_words(self, slot: Slot, options: GroupOptions) -> str:
        """The same, with the switches that make it narrower than usual."""
        kind = self.range_of(slot, options)
        if kind == slot.range:
            return kind.words
        chosen = " and ".join(f"{name}=True" for name in self.switches if options.of_rule[name])
        return f"{kind.words} with {chosen}"

    def program(self, options: GroupOptions) -> Program:
        """The program that computes the scalars, then the carried numbers after the update.

        Its inputs are the hyperparameters by slot, then the carried numbers; its step is the count.
        """
        choices = tuple(sorted(options.of_rule.items()))
        return _program(self, options.decay_mode, options.peak_lr, choices)


@functools.lru_cache(maxsize=1024)
def _program(
    rule: UpdateRule, decay_mode: DecayMode, peak_lr: float, choices: tuple[tuple[str, Any], ...]
) -> Program:
    options = GroupOptions(decay_mode=decay_mode, peak_lr=peak_lr, of_rule=dict(choices))
    symbols = Symbols(tuple(carried.name for carried in rule.carried))
    found = rule.expressions(symbols, options)
    names = (*rule.scalars, *(carried.name for carried in rule.carried))
    return compile_all([as_schedule(found[name]) for name in names], symbols.size)


# Filled as the package is imported, so before anything is unpickled.
_BY_NAME: dict[str, UpdateRule] = {}


def _find(name: str) -> UpdateRule:
    return _BY_NAME[name]
