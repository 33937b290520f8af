"""Parameters and gradients of a workload that repeat after PERIOD elements.

So the float64 reference of a workload is PERIOD elements long, however large the workload is, and
filling it takes no longer than copying. The period is a prime: work that is cut into chunks and
put together in the wrong order does not hit the same values by chance.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from device import Cpu, Device
from torch import Tensor
from torch.nn import Parameter
from workloads import Case

PERIOD = 1_000_003
PIECE = 2**17  # at a time, so that what is done with it stays in a cache; a GPU takes a period
PARAMETER_SCALE = 0.02
# Norms of the successive gradients: the clip at 1 acts in all steps but the second.
NORMS = (3.0, 0.5, 1.7)
CPU = Cpu()


@dataclass(frozen=True)
class Settings:
    """The hyperparameters, the same for all providers.

    They make an update about as large as the parameters, so that a wrong one cannot hide
    behind their rounding.
    """

    lr: float = 0.01
    warmup_steps: int = 4
    total_steps: int = 1_000_000
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    loss_scale: float = 65536.0
    momentum: float = 0.9  # of SGD, whose dampening is 0
    optimizer: str = "adamw"
    ema_decay: float = 0.9  # so low that an update of an average is seen
    rider: str = ""


class Data:
    """The values of one case; ``pool`` is one period of them."""

    def __init__(self, case: Case, settings: Settings, seed: int = 0, device: Device = CPU):
        self.case, self.device = case, device
        self.kept: list[Parameter] = []  # those of all providers, where they share them
        self.piece = PIECE if device.place.type == "cpu" else PERIOD
        self.starts = [0]
        for size in case.workload.sizes:
            self.starts.append(self.starts[-1] + size)
        self.total = self.starts.pop()
        self.scale = settings.loss_scale if case.form.unscales else 1.0
        generator = torch.Generator().manual_seed(seed)
        period = min(PERIOD, self.total)
        drawn = [torch.randn(period, generator=generator) for _ in range(1 + len(NORMS))]
        draws = [draw.to(device.place) for draw in drawn]
        self.initial = (PARAMETER_SCALE * draws[0]).to(case.dtype)
        per_element = self.total**-0.5
        self.gradients = [
            (norm * per_element * self.scale * draw).to(case.dtype)
            for norm, draw in zip(NORMS, draws[1:], strict=True)
        ]

    def parameters(self) -> list[Parameter]:
        """Parameters with their initial values, and gradients that hold nothing yet."""
        dtype, place = self.case.dtype, self.device.place
        params = self.kept or [
            Parameter(torch.empty(shape, dtype=dtype, device=place))
            for shape in self.case.workload.shapes
        ]
        for param, start in zip(params, self.starts, strict=True):
            self._fill(param, self.initial, start)
            if param.grad is None:
                param.grad = torch.empty_like(param)
        if self.device.shares_tensors:
            self.kept = params
        return params

    def write_gradients(self, params: list[Parameter], step: int) -> None:
        """What a backward pass leaves behind."""
        pool = self.gradients[step % len(self.gradients)]
        for param, start in zip(params, self.starts, strict=True):
            if self.case.workload.fresh:
                param.grad = torch.empty_like(param)
            assert param.grad is not None
            self._fill(param.grad, pool, start)

    def pieces(self, tensor: Tensor, start: int) -> Iterator[tuple[Tensor, slice]]:
        """Stretches of a tensor that begins at element ``start``, with their place in a pool."""
        flat, period = tensor.detach().view(-1), len(self.initial)
        done = 0
        while done < len(flat):
            offset = (start + done) % period
            count = min(self.piece, period - offset, len(flat) - done)
            yield flat[done : done + count], slice(offset, offset + count)
            done += count

    def norm(self, pool: Tensor) -> float:
        """Of the whole workload filled with a pool, in float64."""
        squares = pool.double().square()
        whole, rest = divmod(self.total, len(pool))
        return float(whole * squares.sum() + squares[:rest].sum()) ** 0.5

    def _fill(self, tensor: Tensor, pool: Tensor, start: int) -> None:
        for piece, place in self.pieces(tensor, start):
            piece.copy_(pool[place])
