"""What the states show of counts and carried numbers: views of single elements of columns."""

from typing import Any

from torch import Tensor

from lrfused.memory.checks import is_freed


class Shown:
    """A view of each column for each parameter; of those in ``carried`` only where it carries them.

    Through a view a caller can move the memory of all (``share_memory_()``) or free it, and can
    point the view elsewhere (``.data``).
    """

    def __init__(self, columns: dict[str, Tensor], carried: dict[str, Tensor], carries: list[bool]):
        self._columns = {**columns, **carried}
        self.views = [
            {key: column[i] for key, column in (self._columns if more else columns).items()}
            for i, more in enumerate(carries)
        ]

    def is_in(self, state: dict[str, Any], index: int, key: str) -> bool:
        """True if the state has the parameter's view, which nobody has pointed elsewhere."""
        if key not in self.views[index]:
            return False
        view, column = self.views[index][key], self._columns[key]
        address = column.data_ptr() + index * column.stride(0) * column.element_size()
        is_in_place = view.data_ptr() == address and view.dtype == column.dtype and not view.dim()
        return is_in_place and state.get(key) is view

    def are_all_in(self, state: dict[str, Any], index: int) -> bool:
        """True if that holds of every view of the parameter."""
        return all(self.is_in(state, index, key) for key in self.views[index])

    def check_memory(self) -> None:
        """Refuse columns that a caller has freed through a view.

        Raises:
            ValueError: one has no memory.
        """
        for key, column in self._columns.items():
            if is_freed(column):
                raise ValueError(f"state[{key!r}] has no memory (its storage was freed)")
