"""What goes along in a step: lrfused's arguments, torch's passes that do the same, their bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import data
import torch
from data import Settings
from torch import Tensor
from torch.nn import Parameter
from torch.optim.swa_utils import get_ema_multi_avg_fn
from workloads import Form

Parameters = list[Parameter]
KEPT = 0.5  # of the elements of a mask, drawn one by one
AVERAGE_BYTES = 4  # float32, whatever the parameters are


def mask_pool(total: int, device: torch.device) -> Tensor:
    """One period of the masks of a workload with so many elements."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.rand(min(data.PERIOD, total), generator=generator)
    return (drawn < KEPT).to(device)


def masks(params: Parameters) -> list[Tensor]:
    """A mask for each parameter; together they repeat as the values do."""
    sizes = [param.numel() for param in params]
    total = sum(sizes)
    pool = mask_pool(total, params[0].device)
    flat = pool.repeat(-(-total // len(pool)))[:total].split(sizes)
    return [part.view(p.shape).clone() for part, p in zip(flat, params, strict=True)]


# What torch does


class Passes:
    """Before the gradients are looked at, and after the step: nothing."""

    def __init__(self, params: Parameters, optimizer: torch.optim.Optimizer, settings: Settings):
        self.params, self.optimizer = params, optimizer
        self.averages: list[Tensor] = []

    def before(self) -> None:
        """What comes before the unscaling and the norm."""

    def after(self) -> None:
        """What comes after the update."""


class Average(Passes):
    """swa_utils' own function; it refuses a float32 average of 16-bit weights, a copy is made."""

    def __init__(self, params: Parameters, optimizer: torch.optim.Optimizer, settings: Settings):
        super().__init__(params, optimizer, settings)
        self.averages = [torch.empty_like(p, dtype=torch.float32) for p in params]
        self.update, self.updates = get_ema_multi_avg_fn(settings.ema_decay), 0

    @torch.no_grad()
    def after(self) -> None:
        if self.updates == 0:  # as AveragedModel
            torch._foreach_copy_(self.averages, self.params)
        elif self.params[0].dtype == torch.float32:
            self.update(self.averages, self.params, self.updates)
        else:
            for average, param in zip(self.averages, self.params, strict=True):
                self.update([average], [param.float()], self.updates)
        self.updates += 1


class Masks(Passes):
    """Multiplies by masks in the weights' dtype, as pruning does: bool ones take longer."""

    def __init__(self, params: Parameters, optimizer: torch.optim.Optimizer, settings: Settings):
        super().__init__(params, optimizer, settings)
        self.masks = [mask.to(p.dtype) for mask, p in zip(masks(params), params, strict=True)]

    def before(self) -> None:
        torch._foreach_mul_([param.grad for param in self.params], self.masks)

    @torch.no_grad()
    def after(self) -> None:
        torch._foreach_mul_(self.params, self.masks)


class ZeroGrads(Passes):
    """Gradients that stay."""

    def after(self) -> None:
        self.optimizer.zero_grad(set_to_none=False)


# What both cost


@dataclass(frozen=True)
class Rider:
    """
    Attributes:
        passes: torch's.
        arguments: lrfused's.
        torch_bytes: what the passes read and write of a parameter if nothing stays in a cache.
        own_bytes: the same of lrfused, where what the update has just had is in a cache still.
        torch_how, own_how: these in words.
    """

    title: str
    passes: type[Passes]
    arguments: Callable[[Parameters, Settings], dict[str, Any]]
    torch_bytes: Callable[[Form, torch.dtype], float]
    own_bytes: Callable[[Form, torch.dtype], float]
    torch_how: str
    own_how: str


def _average_by_torch(form: Form, dtype: torch.dtype) -> float:
    copy = 0 if dtype == torch.float32 else 2 * AVERAGE_BYTES
    return dtype.itemsize + copy + 2 * AVERAGE_BYTES


RIDERS = {
    "average": Rider(
        "average of the weights",
        Average,
        lambda params, settings: {"ema_decay": settings.ema_decay},
        _average_by_torch,
        lambda form, dtype: 2 * AVERAGE_BYTES,
        "p and the average read, the average written; of bfloat16 a float32 copy written and read",
        "the average read and written",
    ),
    "masks": Rider(
        "masks",
        Masks,
        lambda params, settings: {"masks": dict(zip(params, masks(params), strict=True))},
        lambda form, dtype: 6 * dtype.itemsize,
        lambda form, dtype: (2 if form.clips else 1) / 8,
        "g and a mask read, g written; p and the mask read, p written",
        "a bit read by measure, and one by apply",
    ),
    "zero-grads": Rider(
        "gradients zeroed",
        ZeroGrads,
        lambda params, settings: {"zero_grads": True},
        lambda form, dtype: dtype.itemsize,
        lambda form, dtype: dtype.itemsize,
        "g written",
        "g written",
    ),
}
NONE = Rider("", Passes, lambda *_: {}, lambda *_: 0, lambda *_: 0, "", "")


def find(name: str) -> Rider:
    """By the name in the settings, which is empty where nothing goes along."""
    return RIDERS[name] if name else NONE
