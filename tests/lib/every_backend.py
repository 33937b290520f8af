"""The backends that a test runs over: on a CPU, Triton's interpreted and CUDA's emulated; and
`cuda-ptx` and `triton-ptx`, whose kernels are the PTX that nvcc and Triton make of them, run by
tests/ptx under the host code of the backends cuda and triton.

A step takes the emulation less time than the reference, the interpreter 30 ms to 1 s; Triton takes
seconds to compile for what it has not seen. The variable LRFUSED_TEST_BACKENDS="reference,cpu"
leaves the others out: what a test shows of another stack than the usual one is mostly host Python.
"""

import os

import pytest

from lib.emulating import emulated
from lib.interpreting import interpreted
from lib.on_ptx import cuda_ptx, triton_ptx  # noqa: F401 (fixtures)
from lib.runs import needs_cpp

ONLY = os.environ.get(
    "LRFUSED_TEST_BACKENDS", "reference,cpu,triton,cuda,cuda-ptx,triton-ptx"
).split(",")
MARKS = {
    "cpu": needs_cpp,
    "triton": interpreted,
    "cuda": emulated,
    "cuda-ptx": emulated,
    "triton-ptx": emulated,  # without Triton it fails: what is pinned has to be there
}


def parameter(name):
    """Dashes stand between parameters."""
    return pytest.param(name, marks=MARKS[name], id=name.replace("-", "_"))


KERNELS = [parameter(name) for name in MARKS if name in ONLY]
REFERENCE = ["reference"] if "reference" in ONLY else []


def ready(request):
    """The name of the backend that a fixture was asked for, its kernels in their place."""
    name, _, form = request.param.partition("-")
    if name == "cuda":
        request.getfixturevalue("cuda")
    if form:
        request.getfixturevalue(f"{name}_{form}")
    return name


@pytest.fixture(params=[*REFERENCE, *KERNELS])
def backend(request):
    """Each backend of this machine."""
    return ready(request)


@pytest.fixture(params=KERNELS)
def kernels(request):
    """Each of them but the reference, which it is compared with."""
    return ready(request)
