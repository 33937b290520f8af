"""The optimizers that there are, by id: a compiled graph can name one, not hold it."""

from typing import Any, Protocol
from weakref import WeakValueDictionary

from lrfused.engine.engine import Engine


class Live(Protocol):
    """An optimizer, as far as its compiled step needs it."""

    param_groups: list[dict[str, Any]]
    state: Any
    _engine: Engine
    _optimizer_step_pre_hooks: Any
    _optimizer_step_post_hooks: Any

    def _update(self) -> None:
        """One eager step with the gradients that there are."""


LIVE: WeakValueDictionary[int, Live] = WeakValueDictionary()
