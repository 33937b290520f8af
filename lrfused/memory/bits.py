"""One bit an element: bool vectors, packed eight to a byte for kernels, lowest bit first."""

import torch
from torch import Tensor

PADDING = 128  # bytes: kernels read whole words, of all rows of a last short block


def pack(flat: Tensor) -> Tensor:
    """A bool vector as bytes; whole words of 32 bits, and what is read beyond them."""
    words = -(-flat.numel() // 32)
    padded = torch.zeros(words * 32, dtype=torch.uint8, device=flat.device)
    padded[: flat.numel()] = flat
    values = torch.tensor([1 << i for i in range(8)], dtype=torch.uint8, device=flat.device)
    bits = torch.zeros(words * 4 + PADDING, dtype=torch.uint8, device=flat.device)
    bits[: words * 4] = (padded.view(-1, 8) * values).sum(1, dtype=torch.uint8)
    return bits


def unpack(bits: Tensor, count: int) -> Tensor:
    """The bool vector of so many elements."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (bits[:, None] >> places).bitwise_and_(1).bool().view(-1)[:count]
