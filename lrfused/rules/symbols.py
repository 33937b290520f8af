"""The variables in a rule's scalar expressions, and expressions that rules share."""

from lrfused.schedules import Schedule
from lrfused.schedules.expression import as_schedule, step
from lrfused.schedules.nodes import VARIABLE
from lrfused.settings.options import DecayMode, GroupOptions
from lrfused.settings.slots import Slot


class Symbols:
    """The variables of a rule as attributes: ``count``, hyperparameters, carried numbers.

    A carried number is the one before the update. ``one`` is the constant 1. Each is one object, so
    that a program holds it once, however often it is used.
    """

    def __init__(self, carried: tuple[str, ...]):
        self.count = step
        self.one = as_schedule(1.0)
        names = [slot.name.lower() for slot in Slot]
        self._variables = {
            name: Schedule(VARIABLE, payload=place) for place, name in enumerate([*names, *carried])
        }

    def __getattr__(self, name: str) -> Schedule:
        try:
            return self._variables[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def size(self) -> int:
        """The number of variables."""
        return len(self._variables)


def decay_factor(x: Symbols, options: GroupOptions) -> Schedule:
    """The factor by which decoupled decay multiplies the parameters."""
    if options.decay_mode == DecayMode.L2:
        return x.one
    if options.decay_mode == DecayMode.INDEPENDENT:
        return x.one - x.weight_decay
    if options.decay_mode == DecayMode.LR_RATIO:
        return x.one - x.weight_decay * (x.lr / options.peak_lr)
    return x.one - x.lr * x.weight_decay
