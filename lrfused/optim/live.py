"""The live optimizers by id: a compiled graph can refer to one by number, not hold it."""

from typing import Any, Protocol
from weakref import WeakValueDictionary

from lrfused.engine.engine import Engine


class Live(Protocol):
    """The part of an optimizer that a compiled step uses."""

    param_groups: list[dict[str, Any]]
    state: Any
    _engine: Engine
    _optimizer_step_pre_hooks: Any
    _optimizer_step_post_hooks: Any

    def _update(self) -> None:
        """One eager step with the present gradients."""


LIVE: WeakValueDictionary[int, Live] = WeakValueDictionary()
