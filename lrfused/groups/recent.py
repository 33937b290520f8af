"""Recent: what was made for a value, kept while the value is in use."""

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A cache by value that forgets what was not asked for between two calls of `turn`.

    A copy is empty: the keys may be compared by the ids of what they refer to.
    """

    def __init__(self) -> None:
        self._now: dict[K, V] = {}
        self._before: dict[K, V] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Recent, ()

    def turn(self) -> None:
        """Forget what was not used since the last call."""
        self._now, self._before = {}, self._now

    def get(self, key: K, make: Callable[[], V]) -> V:
        """What ``make`` returned for this key, when it was asked for first."""
        found = self._now.get(key)
        if found is None:
            found = self._before.get(key)
            self._now[key] = found = make() if found is None else found
        return found
