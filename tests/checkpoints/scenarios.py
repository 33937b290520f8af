"""What travels: optimizers, what befalls them while they train, and what must be seen of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lib.optimizers import ADAMW, Kind

import lrfused
from lrfused import schedules

BEFORE, AFTER = 5, 5  # steps before the checkpoint and after it
EVERYWHERE = ("plain", "replicated", "fsdp2", "fsdp1", "fsdp1flat", "fsdp1whole", "zero")
REPLICATED = ("plain", "replicated", "fsdp1whole", "zero")  # each rank knows all gradients
ONE_UNIT = ("plain", "replicated", "fsdp2", "fsdp1", "zero")  # 100 groups need no 100 flat ones

INPUT = "the caller's tensor"  # among a group's options, for the tests alone
Options = Callable[[], dict[str, Any]]  # made anew for each optimizer


def nothing() -> dict[str, Any]:
    """No options."""
    return {}


@dataclass(frozen=True)
class Scenario:
    """A training run.

    Attributes:
        name: of the cells.
        options: of the optimizer.
        groups: options of each group; the last one takes all the remaining blocks.
        blocks: layers of the model.
        settings: where it can be.
        late: the step at which the last block gets its first gradient.
        events: by step: "found_inf" (the GradScaler's), "inf", "large" (gradients).
        classes: whose the optimizer is that saves, and the one that loads.
        kind: the kind of optimizer.
        later_options, later_groups: those of the optimizer that loads, where they differ.
        masks: by step, what becomes of each block's masks before it: "set", "take" or "".
        unmasked: what loads was given no masks; else it has some where the checkpoint does.
        halved: the block whose parameters are bfloat16, or None.
        written_lr: the lr that is written before each step after the checkpoint, by step.
        warns: what the one warning of a load says; () if there is none.
        metrics: what the uninterrupted run has at its end, so that no cell shows nothing.
        scales: loss scales after each step that follows the checkpoint.
    """

    name: str
    options: Options = nothing
    groups: tuple[Options, ...] = (nothing,)
    blocks: int = 3
    settings: tuple[str, ...] = EVERYWHERE
    late: int = 0
    events: Mapping[int, str] = field(default_factory=dict)
    masks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    unmasked: bool = False
    halved: int | None = None
    classes: tuple[str, str] = ("lrfused", "lrfused")
    kind: Kind = ADAMW
    later_options: Options | None = None
    later_groups: tuple[Options, ...] | None = None
    written_lr: Callable[[int], float] | None = None
    warns: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    scales: tuple[float, ...] = ()


def warmup(peak: float) -> schedules.Schedule:
    """Every step differs from its neighbours."""
    return schedules.warmup_cosine(peak, warmup_steps=7, total_steps=40)


def beta2() -> schedules.Schedule:
    """A beta that moves with every step."""
    return schedules.linear(0.9, 0.99, 12)


def scheduled() -> dict[str, Any]:
    """Every hyperparameter is a schedule."""
    return {
        "lr": warmup(0.02),
        "betas": (schedules.linear(0.8, 0.9, 12), beta2()),
        "eps": schedules.linear(1e-8, 1e-6, 12),
        "weight_decay": 0.1 * warmup(0.02) / 0.02,
    }


def with_input() -> dict[str, Any]:
    """An lr with a factor that the caller holds; a new optimizer starts with the factor 1."""
    tensor = torch.tensor(1.0)
    return {"lr": warmup(0.02) * schedules.input(tensor, "temperature"), INPUT: tensor}


def products() -> dict[str, Any]:
    """Products of betas that no power of one beta gives."""
    return {**scheduled(), "bias_correction": "product"}


def sampled(count: int) -> tuple[Options, ...]:
    """Groups that share one schedule with a long table."""
    table = schedules.from_function(lambda t: 0.01 + 0.001 * ((t * 7919) % 500) / 500, 500)
    return tuple(lambda: {"lr": table} for _ in range(count))


def numbers(lr: float) -> Options:
    """torch's own options."""
    return lambda: {"lr": lr, "betas": (0.8, 0.95), "weight_decay": 0.05}


NUMBERS = (numbers(0.02), numbers(0.005))
SKIPS = {1: "found_inf", 3: "found_inf", 4: "found_inf", 5: "found_inf", 8: "found_inf"}
GROWING = {1: "inf", 2: "inf", 7: "inf", 9: "inf"}
BACKING_OFF = {4: "inf", 5: "inf", 6: "inf"}  # the checkpoint is between the first two


def loss_scale(hysteresis: int = 2) -> dict[str, Any]:
    """A scale that backs off at that skip in a row and grows after four good steps."""
    policy = lrfused.LossScale(init=8.0, growth_interval=4, hysteresis=hysteresis)
    return {"lr": warmup(0.02), "loss_scale": policy}


def clipped() -> dict[str, Any]:
    """A norm that only the large gradients exceed."""
    return {"lr": warmup(0.02), "max_grad_norm": schedules.linear(4.0, 3.0, 12)}


OURS = (
    Scenario("numbers", groups=NUMBERS, metrics={"steps": 10}),
    Scenario("amsgrad", lambda: {"amsgrad": True, **numbers(0.02)()}, metrics={"steps": 10}),
    Scenario("schedules", groups=(scheduled, lambda: {"lr": warmup(0.3)}), metrics={"steps": 10}),
    Scenario("input", groups=(with_input, scheduled), metrics={"steps": 10}),
    Scenario("sampled", groups=sampled(100), blocks=100, settings=ONE_UNIT, metrics={"steps": 10}),
    Scenario(
        "skips",
        lambda: {"lr": warmup(0.02)},
        events=SKIPS,
        metrics={"steps": 5, "skipped_steps": 5, "consecutive_skips": 0},
    ),
    Scenario(
        "counted-skips",
        lambda: {"lr": warmup(0.02), "advance_schedule_on_skip": True},
        events={3: "found_inf", 4: "found_inf", 9: "found_inf"},
        metrics={"steps": 10, "skipped_steps": 3, "consecutive_skips": 1},
    ),
    Scenario("late", scheduled, late=2, metrics={"steps": 10}),
    Scenario("not-yet", scheduled, late=7, metrics={"steps": 10}),
    Scenario("products", products, late=2, events={3: "found_inf"}, metrics={"steps": 9}),
    Scenario("products-not-yet", products, late=7, metrics={"steps": 10}),
    Scenario(
        "clips",
        clipped,
        settings=REPLICATED,
        events={1: "large", 3: "large", 6: "large"},
        metrics={"steps": 10, "clipped_steps": 3},
    ),
    Scenario(
        "scale-growing",
        loss_scale,
        settings=REPLICATED,
        events=GROWING,
        metrics={"steps": 6, "skipped_steps": 4},
        scales=(4.0, 8.0, 8.0, 8.0, 8.0),
    ),
    Scenario(
        "scale-backing-off",
        lambda: loss_scale(hysteresis=3),
        settings=REPLICATED,
        events=BACKING_OFF,
        metrics={"steps": 7, "skipped_steps": 3},
        scales=(16.0, 8.0, 8.0, 8.0, 8.0),
    ),
)

EVERYTHING = (
    Scenario(
        "everything",
        groups=(lambda: {**products(), **with_input()}, products, lambda: {"lr": warmup(0.3)}),
        late=2,
        events=SKIPS,
        metrics={"steps": 5, "skipped_steps": 5},
    ),
    Scenario(
        "everything-measured",
        lambda: {**clipped(), **loss_scale(), "amsgrad": True},
        groups=(lambda: {**products(), **with_input()}, lambda: {"lr": warmup(0.3)}),
        settings=REPLICATED,
        late=2,
        events={**GROWING, 3: "large", 6: "large"},
        metrics={"steps": 6, "skipped_steps": 4, "clipped_steps": 2},
        scales=(4.0, 8.0, 8.0, 8.0, 8.0),
    ),
)

OTHERWISE = (
    Scenario(
        "number-to-schedule",
        lambda: {"lr": 0.02},
        later_options=lambda: {"lr": warmup(0.02)},
        written_lr=warmup(0.02),
        warns=("lr",),
        metrics={"steps": 10},
    ),
    Scenario(
        "other-option",
        lambda: {"lr": warmup(0.02)},
        later_options=lambda: {"lr": warmup(0.02), "advance_schedule_on_skip": True},
        warns=("advance_schedule_on_skip",),
        metrics={"steps": 10},
    ),
    Scenario(
        "scale-added",
        lambda: {"lr": warmup(0.02)},
        settings=REPLICATED,
        later_options=loss_scale,
        warns=("loss_scale",),
        metrics={"steps": 10},
    ),
    Scenario(
        "scale-dropped",
        loss_scale,
        settings=REPLICATED,
        later_options=lambda: {"lr": warmup(0.02)},
        warns=("loss_scale",),
        metrics={"steps": 10},
    ),
)

TORCH = ("torch", "torch")
TORCHS = (
    Scenario("everything", lambda: {"amsgrad": True}, NUMBERS, late=2, classes=TORCH),
    Scenario("numbers", groups=NUMBERS, classes=TORCH),
    Scenario("late", numbers(0.02), late=2, classes=TORCH),
    Scenario("not-yet", numbers(0.02), late=7, classes=TORCH),
)

EXCHANGED = (
    Scenario(
        "torch-to-ours",
        groups=NUMBERS,
        late=2,
        classes=("torch", "lrfused"),
        later_groups=(lambda: {**numbers(0.02)(), "lr": warmup(0.02)},) * 2,
        written_lr=warmup(0.02),
    ),
    Scenario("ours-to-torch", groups=NUMBERS, late=2, classes=("lrfused", "torch")),
)
