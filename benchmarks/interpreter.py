"""Whether Triton's interpreter works at all here: an old one may not take a new NumPy."""

import triton
import triton.language as tl


@triton.jit
def count_kernel(total, length):
    found = 0
    for i in range(tl.load(length)):
        found += i
    tl.store(total, found)


def why_not() -> str | None:
    """What a loop of a length from memory raises; None: it is counted rightly."""
    import torch

    total, length = torch.zeros(1, dtype=torch.int64), torch.full((1,), 4)
    try:
        count_kernel[(1,)](total, length)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None if int(total) == 6 else f"0 + 1 + 2 + 3 is {int(total)}"
