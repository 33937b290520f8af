"""The two pipelines that the demo compares, and the loop that trains with both."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, Protocol

import torch
from demo_data import Corpus, draw_batches
from demo_model import GPT, Shape, decay_groups
from torch import Tensor
from tqdm import tqdm

import lrfused
from lrfused import schedules


@dataclass(frozen=True)
class Settings:
    """What both runs share.

    At three times this peak training is chaotic and blows up the last bit's rounding: with
    float16 even torch's fused AdamW and its loop over tensors then show losses 2e-2 apart.
    """

    shape: Shape
    device: torch.device
    steps: int = 600
    seed: int = 0
    batch: int = 16
    validation_batches: int = 20
    peak_lr: float = 1e-3
    end_lr: float = 1e-4
    longest_warmup: int = 60
    max_grad_norm: float = 1.5
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    half: bool = False

    @property
    def warmup_steps(self) -> int:
        return min(self.longest_warmup, self.steps // 2)


@dataclass(frozen=True)
class Report:
    """What one step did."""

    lr: float
    grad_norm: float
    clip_coefficient: float
    skipped: bool

    @property
    def clipped(self) -> bool:
        return self.clip_coefficient < 1.0 and not self.skipped


@dataclass
class Run:
    """One training, step by step."""

    name: str
    losses: list[float] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    optimizer_seconds: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    validation_loss: float = math.nan

    @property
    def clipped_steps(self) -> int:
        return sum(report.clipped for report in self.reports)

    @property
    def skipped_steps(self) -> int:
        return sum(report.skipped for report in self.reports)


def loss_differences(first: Run, second: Run) -> list[float]:
    """How far the losses are apart at each step."""
    return [abs(a - b) for a, b in zip(first.losses, second.losses, strict=True)]


class Pipeline(Protocol):
    """All that follows the forward pass."""

    name: str

    def __init__(self, model: GPT, settings: Settings): ...
    def scale(self, loss: Tensor) -> Tensor: ...
    def step(self) -> None: ...
    def zero_grad(self) -> None: ...
    def report(self) -> Report: ...


class TorchPipeline:
    """GradScaler, clip_grad_norm_, torch's fused AdamW and LambdaLR."""

    name = "torch"

    def __init__(self, model: GPT, settings: Settings):
        self.parameters = list(model.parameters())
        self.max_grad_norm = settings.max_grad_norm
        groups = decay_groups(model, settings.weight_decay)
        lr, betas = settings.peak_lr, settings.betas
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)

        def factor(step: int) -> float:
            warmup_steps, end = settings.warmup_steps, settings.end_lr / settings.peak_lr
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            progress = (step - warmup_steps) / (settings.steps - warmup_steps)
            return end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * progress))

        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.scaler = torch.amp.GradScaler(settings.device.type, enabled=settings.half)

    def scale(self, loss: Tensor) -> Tensor:
        return self.scaler.scale(loss)

    def step(self) -> None:
        self.lr = self.optimizer.param_groups[0]["lr"]
        self.scaler.unscale_(self.optimizer)
        self.norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # A scale that fell means that the update was left out; the schedule then waits too.
        self.skipped = self.scaler.get_scale() < scale
        if not self.skipped:
            self.scheduler.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def report(self) -> Report:
        norm = self.norm.item()
        return Report(self.lr, norm, min(1.0, self.max_grad_norm / (norm + 1e-6)), self.skipped)


class FusedPipeline:
    """The same in one object and one call."""

    name = "lrfused"

    def __init__(self, model: GPT, settings: Settings):
        lr = schedules.warmup_cosine(
            settings.peak_lr, settings.warmup_steps, settings.steps, settings.end_lr, start="1/n"
        )
        self.optimizer = lrfused.AdamW(
            decay_groups(model, settings.weight_decay),
            lr=lr,
            betas=settings.betas,
            max_grad_norm=settings.max_grad_norm,
            loss_scale="dynamic" if settings.half else None,
        )

    def scale(self, loss: Tensor) -> Tensor:
        return self.optimizer.scale(loss)

    def step(self) -> None:
        self.optimizer.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def report(self) -> Report:
        metrics: dict[str, Any] = self.optimizer.metrics()
        return Report(
            metrics["lr"][0],
            metrics["grad_norm"],
            metrics["clip_coefficient"],
            metrics["consecutive_skips"] > 0,
        )


class Training:
    """A model that is trained from the seed with one of the pipelines."""

    def __init__(self, pipeline_type: type[Pipeline], settings: Settings):
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.model = GPT(settings.shape).to(settings.device)
        self.pipeline = pipeline_type(self.model, settings)
        self.run = Run(self.pipeline.name)

    def step(self, windows: Tensor) -> None:
        started = self._now()
        loss = self._loss(windows)
        self.pipeline.scale(loss).backward()
        before_step = self._now()
        self.pipeline.step()
        ended = self._now()
        self.pipeline.zero_grad()
        self.run.losses.append(loss.item())
        self.run.reports.append(self.pipeline.report())
        self.run.optimizer_seconds.append(ended - before_step)
        self.run.step_seconds.append(ended - started)

    @torch.no_grad()
    def validate(self, tokens: Tensor) -> None:
        batches = batches_of(tokens, self.settings.validation_batches, self.settings)
        self.run.validation_loss = mean(self._loss(windows).item() for windows in batches)

    def _loss(self, windows: Tensor) -> Tensor:
        device = self.settings.device
        with torch.autocast(device.type, torch.float16, enabled=self.settings.half):
            return self.model.loss(windows.to(device))

    def _now(self) -> float:
        """The time after all that was launched is done."""
        if self.settings.device.type == "cuda":
            torch.cuda.synchronize(self.settings.device)
        return time.perf_counter()


def train(types: Sequence[type[Pipeline]], settings: Settings, corpus: Corpus) -> list[Run]:
    """One training for each pipeline, all from the same seed and with the same batches.

    They take turns at every batch, so that whatever else the machine does slows all of them.
    """
    trainings = [Training(pipeline_type, settings) for pipeline_type in types]
    batches = batches_of(corpus.train, settings.steps, settings)
    progress = tqdm(batches, desc="training", total=settings.steps, unit="step")
    for windows in progress:
        for training in trainings:
            training.step(windows)
        losses = {t.run.name: f"{t.run.losses[-1]:.4f}" for t in trainings}
        progress.set_postfix(losses, refresh=False)
    for training in trainings:
        training.validate(corpus.validation)
    return [training.run for training in trainings]


def batches_of(tokens: Tensor, count: int, settings: Settings) -> Iterator[Tensor]:
    return draw_batches(tokens, count, settings.batch, settings.shape.block, settings.seed)
