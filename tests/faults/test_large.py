"""A parameter of more than 2^31 elements: every index and count is 64 bits wide.

Its memory is one small piece of zeros that shows all over 4 GiB of addresses, but for a few
places that are pages of their own: what the step computes from zeros are the same zeros, and
the test needs no 16 GiB.
"""

import ctypes
import mmap
import os
import sys

import pytest
import torch

from .helpers import accepting, assert_same_bits, needs_cpp

COUNT = 2**31 + 8
PAGE = mmap.PAGESIZE
PIECE = 64 * 2**20  # bytes of zeros that are shown again and again
LENGTH = -(-2 * COUNT // PAGE) * PAGE  # in bytes, of bfloat16
# Elements that have values of their own, each place inside one page.
PLACES = (slice(0, 8), slice(2**30 - 4, 2**30), slice(2**31 - 8, 2**31), slice(2**31, COUNT))
MAP_FIXED = 0x10


class Mostly:
    """A vector of bfloat16 zeros of which only ``PLACES`` can hold something else."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mmap.restype = ctypes.c_void_p
        self.libc.mmap.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            *[ctypes.c_int] * 3,
            ctypes.c_long,
        ]
        self.address = self._map(None, LENGTH, -1)
        zeros = os.memfd_create("zeros")
        os.truncate(zeros, PIECE)
        for start in range(0, LENGTH, PIECE):
            self._map(self.address + start, min(PIECE, LENGTH - start), zeros)
        os.close(zeros)
        for place in PLACES:
            self._map(self.address + 2 * place.start // PAGE * PAGE, PAGE, -1)
        memory = (ctypes.c_uint16 * COUNT).from_address(self.address)
        self.tensor = torch.frombuffer(memory, dtype=torch.bfloat16)

    def _map(self, address: int | None, length: int, file: int) -> int:
        own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        flags = (own if file < 0 else mmap.MAP_SHARED) | (MAP_FIXED if address else 0)
        mapped = self.libc.mmap(address, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, 0)
        assert mapped != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
        return mapped

    def close(self) -> None:
        """Give the addresses back."""
        self.libc.munmap(ctypes.c_void_p(self.address), ctypes.c_size_t(LENGTH))


def at_places(tensor: torch.Tensor) -> torch.Tensor:
    """The elements that are not zero, one after the other."""
    return torch.cat([tensor.detach()[place] for place in PLACES])


@needs_cpp
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="maps memory as Linux does")
def test_more_than_2_31_elements_are_updated_and_count_in_the_norm(rng, kind):
    """Each place is updated and counts in the norm as in a small parameter of the places alone.

    The values are powers of two, so that the norm has the same bits in any order.
    """
    vectors = [Mostly() for _ in range(2 + len(kind.moments))]
    large, gradient, *moments = (v.tensor for v in vectors)
    length = len(at_places(large))
    signs = torch.randint(2, (2, length), generator=rng.torch) * 2.0 - 1.0
    powers = torch.randint(-2, 3, (2, length), generator=rng.torch)
    values, slopes = (signs * 2.0**powers).bfloat16()
    small = accepting(values.clone())
    small.grad = slopes.clone()
    filled = 0
    for place in PLACES:
        size = place.stop - place.start
        large[place] = values[filled : filled + size]
        gradient[place] = slopes[filled : filled + size]
        filled += size
    p = torch.nn.Parameter(large)
    p.grad = gradient
    opt = kind.ours([p], lr=0.5, max_grad_norm=0.25, backend="cpu")
    plain = kind.ours([small], lr=0.5, max_grad_norm=0.25, backend="reference")
    if kind.has_state:
        zeros = [torch.zeros_like(values) for _ in moments]
        for optimizer, param, state in ((opt, p, moments), (plain, small, zeros)):
            optimizer.state[param] = dict(zip(kind.moments, state, strict=True))
            optimizer.state[param] |= {"step": torch.tensor(0.0)} if kind.counts else {}
    zeros_counted = {"tiny_gradients": (COUNT - length) / COUNT}
    for _ in range(2):
        opt.step()
        plain.step()
        assert opt.metrics() == plain.metrics() | zeros_counted
        assert_same_bits(at_places(p), small.detach())
    for key, moment in zip(kind.moments, moments, strict=True):
        assert_same_bits(at_places(moment), plain.state[small][key])
    assert not torch.equal(at_places(p), values)
    for vector in vectors:
        vector.close()
