"""The CUDA backend on CPU tensors: csrc/cuda compiled against the cuda_runtime.h of this folder."""

from lib.emulating import cuda, emulation  # noqa: F401 (fixtures)
from lib.rules_for_steps import rule  # noqa: F401 (a fixture)
