"""lrfused: optimizers whose whole step is fused, with schedules that are programs."""

from typing import TYPE_CHECKING

from lrfused import versions
from lrfused.backends.info import info

__all__ = [
    "SGD",
    "AdamW",
    "FusedOptimizer",
    "Lion",
    "LossScale",
    "ReportLR",
    "analysis",
    "batchnorm",
    "groups",
    "info",
    "losses",
    "schedules",
]

if TYPE_CHECKING or versions.why_unusable() is None:
    from lrfused import analysis, batchnorm, groups, losses, schedules
    from lrfused.optim.adamw import AdamW
    from lrfused.optim.base import FusedOptimizer
    from lrfused.optim.lion import Lion
    from lrfused.optim.report import ReportLR
    from lrfused.optim.sgd import SGD
    from lrfused.settings.loss_scale import LossScale
else:

    def __getattr__(name: str) -> None:
        """Only `info()` works here and reports the reason; all else needs a supported torch."""
        if name in __all__:
            raise ImportError(f"lrfused.{name}: {versions.why_unusable()}")
        raise AttributeError(f"module 'lrfused' has no attribute {name!r}")
