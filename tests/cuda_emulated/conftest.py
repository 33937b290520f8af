"""The CUDA backend on CPU tensors: csrc/cuda compiled against the cuda_runtime.h of this folder."""

from emulating import cuda, emulation  # noqa: F401 (fixtures)
from threads import one_thread  # noqa: F401 (a fixture)
