"""The backends that a test runs over: on a CPU, Triton's interpreted and CUDA's emulated.

A step takes the emulation less time than the reference, the interpreter 30 ms to 1 s.
"""

import pytest
from emulating import emulated
from interpreting import interpreted
from step.helpers import needs_cpp

KERNELS = [
    pytest.param("cpu", marks=needs_cpp),
    pytest.param("triton", marks=interpreted),
    pytest.param("cuda", marks=emulated),
]


def _ready(request):
    if request.param == "cuda":
        request.getfixturevalue("cuda")
    return request.param


@pytest.fixture(params=["reference", *KERNELS])
def backend(request):
    """Each backend of this machine."""
    return _ready(request)


@pytest.fixture(params=KERNELS)
def kernels(request):
    """Each of them but the reference, which it is compared with."""
    return _ready(request)
