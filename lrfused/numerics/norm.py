"""Definition of the norm: one order of additions for every backend, chip and thread count.

A sequence of numbers is cut into chunks of 65,536, a chunk into 128 blocks of 512, a block
into 8 rows of 64 columns. The 8 squares of a column are added pairwise in the compute type;
a float32 sum outside [2**-100, 2**127] is recomputed in float64, so nothing overflows or
underflows. The sum is added to the float64 lane (block modulo 32, column), in the order of the
blocks; the 2048 lanes of a chunk are added pairwise. 256 neighbouring chunks are a span, whose
sums are added pairwise; the sum of span i is added to lane i modulo 256, and the 256 lanes are
added pairwise. "Pairwise" is always neighbours first: (0 + 1) + (2 + 3).

One GPU block adds up a span, so that the last stage of the norm has little work however many
chunks there are.

A sequence is padded with zeros at the end, which change no sum.
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
    # A short row is padded only to the next power of two of its blocks.
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
    """The sum of float64 chunk sums, given in the order of the table."""
    spans = pairwise_sum(_rows_of(sums, SPAN))
    lanes = torch.zeros(SPAN_LANES, dtype=torch.float64, device=sums.device)
    for turn in _rows_of(spans, SPAN_LANES):
        lanes = lanes + turn
    return float(pairwise_sum(lanes))


def _rows_of(sums: Tensor, length: int) -> Tensor:
    """The sums as a matrix with rows of ``length``, at least one, padded with zeros."""
    rows = max(1, -(-len(sums) // length))
    padded = torch.zeros(rows * length, dtype=sums.dtype, device=sums.device)
    padded[: len(sums)] = sums
    return padded.view(rows, length)
