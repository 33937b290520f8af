"""What every test of the step starts from."""

from lib.emulating import cuda, emulation  # noqa: F401 (fixtures)
from lib.every_backend import backend, cuda_ptx, kernels, triton_ptx  # noqa: F401 (fixtures)
from lib.rules_for_steps import rule  # noqa: F401 (a fixture)
