"""Riders over every backend and optimizer."""

from lib.emulating import cuda, emulation  # noqa: F401 (fixtures)
from lib.every_backend import backend, cuda_ptx, kernels, triton_ptx  # noqa: F401 (fixtures)
from lib.optimizers import kind  # noqa: F401 (a fixture)
from lib.rules_for_steps import rule  # noqa: F401 (a fixture)
