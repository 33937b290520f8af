"""Builds the result of `FusedOptimizer.metrics` from the state words."""

from math import isnan
from typing import Any

from lrfused.state.device_state import Field, Reading

LARGEST_FLOAT16 = 65504.0


def metrics(reading: Reading, lrs: list[float], measured: bool, scaled: bool) -> dict[str, Any]:
    """The metrics; ``measured`` says whether the last step measured its gradients."""
    largest, tiny = float(reading[Field.LARGEST_GRADIENT]), reading[Field.TINY_GRADIENTS]
    return {
        "lr": lrs,
        "grad_norm": reading[Field.GRAD_NORM] if measured else None,
        "clip_coefficient": reading[Field.CLIP_COEFFICIENT],
        "clipped_steps": reading[Field.CLIPPED_STEPS],
        "skipped_steps": reading[Field.SKIPPED_STEPS],
        "consecutive_skips": reading[Field.CONSECUTIVE_SKIPS],
        "steps": reading[Field.STEP],
        "loss_scale": reading[Field.LOSS_SCALE] if scaled else None,
        "headroom": (LARGEST_FLOAT16 / largest if largest else float("inf")) if measured else None,
        "tiny_gradients": None if not measured or isnan(tiny) else tiny,
    }
