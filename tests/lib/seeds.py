"""Where a run's random numbers come from."""

from typing import NamedTuple

import numpy as np
import torch

SEED = "LRFUSED_TEST_SEED"  # the variable that repeats a run


class Rng(NamedTuple):
    """Generators of one test."""

    numpy: np.random.Generator
    torch: torch.Generator
