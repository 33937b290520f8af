"""What the C++ source asks for is in the machine code."""

import platform
import re
from pathlib import Path

import pytest

from lrfused import native

PREFETCH = re.compile(rb"\x0f\x18[\x08-\x0f\x48-\x4f\x88-\x8f]")  # prefetcht0 of an address


@pytest.mark.skipif(native.cpu is None, reason="no C++ backend")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64 machine code")
def test_measure_prefetches():
    """g++ leaves out a function that does nothing else, unless it is always inlined."""
    code = Path(native.cpu.__file__).read_bytes()
    assert len(PREFETCH.findall(code)) >= 2 * len(native.cpu.instruction_sets())
