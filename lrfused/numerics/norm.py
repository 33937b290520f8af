"""The norm, defined: one order of additions for every backend, chip and thread count.

A sequence of numbers is cut into chunks of 65,536, a chunk into 128 blocks of 512, a block
into 8 rows of 64 columns. The 8 squares of a column are added pairwise in the compute type;
a float32 sum outside [2**-100, 2**127] is done again in float64, so nothing overflows or
vanishes. It then enters the float64 lane (block modulo 32, column), in the order of the
blocks; the 2048 lanes of a chunk are added pairwise. 256 neighbouring chunks are a span, whose
sums are added pairwise; span sums enter 256 lanes, span i lane i modulo 256, which are added
pairwise. "Pairwise" is always neighbours first: (0 + 1) + (2 + 3).

A span is what a block of a GPU adds up by itself, so that the last step of the norm has little to
do however many chunks there are.

What is missing at the end of a sequence counts as zeros, which change no sum.
"""

import torch
from torch import Tensor

CHUNK = 65536
BLOCK = 512
ROWS = 8
COLUMNS = 64
LANE_BLOCKS = 32
SPAN = 256  # chunks
SPAN_LANES = 256
SMALLEST, LARGEST = 2.0**-100, 2.0**127


def pairwise_sum(x: Tensor) -> Tensor:
    """The sum over the last dimension, a power of two, neighbours first."""
    while x.shape[-1] > 1:
        x = x[..., 0::2] + x[..., 1::2]
    return x[..., 0]


def sums_of_squares(x: Tensor) -> Tensor:
    """Sums of squares of each row of a float32 or float64 matrix: float64, (rows, chunks)."""
    rows, length = x.shape
    if length == 0:
        return torch.zeros((rows, 0), dtype=torch.float64, device=x.device)
    # A short row needs only as many blocks as it has, to the next power of two.
    blocks = -(-length // BLOCK)
    size = BLOCK << (blocks - 1).bit_length() if blocks <= LANE_BLOCKS else CHUNK
    chunks = -(-length // size)
    padded = torch.zeros((rows, chunks * size), dtype=x.dtype, device=x.device)
    padded[:, :length] = x
    lane_blocks = min(size // BLOCK, LANE_BLOCKS)
    columns = padded.view(rows, chunks, -1, lane_blocks, ROWS, COLUMNS).transpose(-1, -2)
    partial = pairwise_sum(columns * columns)
    if x.dtype == torch.float32:
        exact = columns.double()
        inside = (partial >= SMALLEST) & (partial <= LARGEST)
        partial = torch.where(inside, partial.double(), pairwise_sum(exact * exact))
    lanes = torch.zeros_like(partial[:, :, 0])
    for turn in range(partial.shape[2]):
        lanes = lanes + partial[:, :, turn]
    return pairwise_sum(lanes.reshape(rows, chunks, -1))


def combine(sums: Tensor) -> float:
    """One sum of float64 chunk sums, in the order of the table."""
    spans = pairwise_sum(_rows_of(sums, SPAN))
    lanes = torch.zeros(SPAN_LANES, dtype=torch.float64, device=sums.device)
    for turn in _rows_of(spans, SPAN_LANES):
        lanes = lanes + turn
    return float(pairwise_sum(lanes))


def _rows_of(sums: Tensor, length: int) -> Tensor:
    """A matrix of rows of that length, one at least; what is missing is zeros."""
    rows = max(1, -(-len(sums) // length))
    padded = torch.zeros(rows * length, dtype=sums.dtype, device=sums.device)
    padded[: len(sums)] = sums
    return padded.view(rows, length)
