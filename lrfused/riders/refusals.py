"""What masks, averages and snapshots refuse before they change anything."""

from typing import Any

from torch import Tensor

from lrfused.device.graph_capture import is_capturing
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.memory.checks import is_freed
from lrfused.memory.dtensor import local


def refuse_now(what: str, books: Bookkeeping, groups: list[dict[str, Any]]) -> None:
    """Refuse to be a part of a graph, or to take averages for the weights.

    Raises:
        RuntimeError: a CUDA graph is being captured, or the parameters hold their averages.
    """
    if books.holds_averages:
        raise RuntimeError(f"{what}: the parameters hold their averages; leave `averaged` first")
    if is_capturing(books.state(groups).words.device):
        raise RuntimeError(
            f"{what}: a CUDA graph is being captured; call it before, after or between replays"
        )


def has_memory(what: str, tensor: Tensor) -> Tensor:
    """The local tensor.

    Raises:
        ValueError: its storage was freed.
    """
    if is_freed(local(tensor)):
        raise ValueError(f"{what} of shape {tuple(tensor.shape)} has no memory (it was freed)")
    return local(tensor)
