"""StateOperand: a tensor that an optimizer's state has of each parameter."""

from collections.abc import Callable
from dataclasses import dataclass

from lrfused.settings.options import GroupOptions

Condition = Callable[[GroupOptions], bool]


def always(_: GroupOptions) -> bool:
    """True for any options."""
    return True


@dataclass(frozen=True)
class StateOperand:
    """A state tensor of the parameter's shape: name, key in torch's state, when it is used.

    ``initial`` fills it. With ``widens`` that of a 16-bit parameter is float32.
    """

    name: str
    key: str
    is_used: Condition = always
    initial: float = 0.0
    widens: bool = False
