"""Long tables of schedules as text: each stands once among an optimizer's groups, under its hash.

A sampled schedule used in 100 groups is one table.
"""

import base64
import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def encoded(table: NDArray[np.float64]) -> tuple[str, str]:
    """The name of a table, and its text."""
    values = table.astype("<f8").tobytes()
    text = base64.b64encode(zlib.compress(values)).decode("ascii")
    return hashlib.sha256(values).hexdigest(), text


class Tables:
    """The tables in the texts of groups, each decoded once, when a schedule reads it."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._values: dict[str, NDArray[np.float64]] = {}

    def add(self, texts: Mapping[str, str]) -> None:
        """Know these tables, too."""
        self._texts |= texts

    def put_in(self, data: dict[str, Any]) -> dict[str, Any]:
        """A schedule's data from a text with its tables put back, for ``Schedule.from_dict``.

        Raises:
            ValueError: a table is damaged, or was in the text of a group that is missing.
        """
        return {**data, "nodes": [self._with_values(node) for node in data["nodes"]]}

    def _with_values(self, node: list[Any]) -> list[Any]:
        kind, payload, places = node
        if kind != "table" or not isinstance(payload, str):
            return node
        if payload not in self._values:
            self._values[payload] = self._decoded(payload)
        return [kind, self._values[payload], places]

    def _decoded(self, name: str) -> NDArray[np.float64]:
        if name not in self._texts:
            raise ValueError(f"table {name:.12}... stands in no group of this checkpoint")
        try:
            values = zlib.decompress(base64.b64decode(self._texts[name]))
        except (zlib.error, ValueError) as error:
            raise ValueError(f"table {name:.12}... is damaged: {error}") from error
        if hashlib.sha256(values).hexdigest() != name:
            raise ValueError(f"table {name:.12}... holds other values than it should")
        return np.frombuffer(values, dtype="<f8")
