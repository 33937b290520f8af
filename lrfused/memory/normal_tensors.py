"""Tensors that outlive whatever mode the caller is in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def normal_tensors() -> Iterator[None]:
    """Without gradients, and what is made is no inference tensor: it can be written later."""
    with torch.inference_mode(False), torch.no_grad():
        yield
