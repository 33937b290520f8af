"""lrfused: optimizers whose whole step is fused, with schedules that are programs."""

from lrfused import schedules
from lrfused.adamw import AdamW
from lrfused.info import info
from lrfused.loss_scale import LossScale

__all__ = ["AdamW", "LossScale", "info", "schedules"]
