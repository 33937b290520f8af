"""Fixtures of the backends whose kernels are translated PTX."""

from lib.emulating import cuda, emulation  # noqa: F401 (fixtures)
from lib.every_backend import cuda_ptx, triton_ptx  # noqa: F401 (fixtures)
from lib.rules_for_steps import rule  # noqa: F401 (a fixture)
