"""Fixtures of the backends whose kernels are translated PTX."""

import pytest
import torch
from lib.emulating import cuda, emulation  # noqa: F401 (fixtures)
from lib.every_backend import cuda_ptx, triton_ptx  # noqa: F401 (fixtures)
from lib.rules_for_steps import rule  # noqa: F401 (a fixture)


@pytest.fixture
def data():
    return torch.zeros(64, dtype=torch.int32)


@pytest.fixture
def out():
    return torch.zeros(64, dtype=torch.int32)
