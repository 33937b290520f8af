"""The dtypes that kernels read and write, and their codes in C++ and Triton."""

import torch

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CODES = {dtype: code for code, dtype in enumerate(DTYPES)}
