# mypy: ignore-errors
"""Whether kernels are interpreted in NumPy: TRITON_INTERPRET=1 stood there at the import.

Apart from all else of this backend, so that it can be asked with any release of Triton.
"""

import triton


@triton.jit
def _nothing():
    """Shows what the decorator makes of a function."""


INTERPRETED = not isinstance(_nothing, triton.runtime.JITFunction)
