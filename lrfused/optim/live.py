"""The optimizers of this process, by id: compiled graphs can name one, not hold it."""

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from torch.optim import Optimizer

LIVE: "WeakValueDictionary[int, Optimizer]" = WeakValueDictionary()
