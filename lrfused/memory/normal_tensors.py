"""Creates tensors that stay usable whatever mode the caller is in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def normal_tensors() -> Iterator[None]:
    """No gradients, and no inference tensors: new tensors can be written later in any mode."""
    with torch.inference_mode(False), torch.no_grad():
        yield
