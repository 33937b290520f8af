"""What is timed: an optimizer with everything that a form puts around its step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rider_costs
import torch
from data import Settings
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR
from workloads import Form

import lrfused
from lrfused import schedules

Parameters = list[Parameter]

# By name, as an older checkout that is timed beside this one may have fewer.
AVERAGE = "lrfused_average"
OWN = {"adamw": "AdamW", "sgd": "SGD", "lion": "Lion"}


@dataclass(frozen=True)
class Pipeline:
    """What is timed; the optimizer, whose state shows whether it is right; where averages are."""

    step: Callable[[], Any]
    optimizer: torch.optim.Optimizer
    averages: Callable[[], list[torch.Tensor]] = list


def torch_pipeline(
    optimizer: torch.optim.Optimizer,
    params: Parameters,
    form: Form,
    settings: Settings,
    compiled: bool = False,
) -> Pipeline:
    """clip_grad_norm_, a scheduler and a GradScaler around any optimizer's step."""
    if not form.clips:
        step = optimizer.step
        return Pipeline(torch.compile(step) if compiled else step, optimizer)
    scheduler = LambdaLR(optimizer, lambda step: warmup_cosine(step, settings))
    if compiled:
        optimizer.step = torch.compile(optimizer.step)  # type: ignore[method-assign]

    def clip() -> None:
        torch.nn.utils.clip_grad_norm_(params, settings.max_grad_norm, foreach=True)

    def clip_and_step() -> None:
        clip()
        optimizer.step()
        scheduler.step()

    def unscale_clip_and_step() -> None:
        scaler.unscale_(optimizer)
        clip()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()

    if not form.unscales:
        return Pipeline(clip_and_step, optimizer)
    scaler = torch.amp.GradScaler(params[0].device.type, init_scale=settings.loss_scale)
    scaler.scale(torch.ones((), device=params[0].device))  # it makes its scale when first used
    return Pipeline(unscale_clip_and_step, optimizer)


def warmup_cosine(step: int, settings: Settings) -> float:
    """The factor of the peak learning rate: (step + 1) / warmup_steps, then a cosine to 0."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    whole = settings.total_steps - settings.warmup_steps
    return 0.5 * (1.0 + math.cos(math.pi * (step - settings.warmup_steps) / whole))


def common(settings: Settings) -> dict[str, Any]:
    """The arguments that every AdamW takes; those of SGD or Lion, where they are stepped."""
    if settings.optimizer == "sgd":
        return {"momentum": settings.momentum, "weight_decay": settings.weight_decay}
    if settings.optimizer == "lion":
        return {"betas": settings.betas, "weight_decay": settings.weight_decay}
    return {
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }


def loop(params: Parameters, form: Form, settings: Settings) -> Pipeline:
    optimizer = torch.optim.AdamW(params, settings.lr, foreach=False, **common(settings))
    return torch_pipeline(optimizer, params, form, settings)


def foreach(params: Parameters, form: Form, settings: Settings) -> Pipeline:
    optimizer = torch.optim.AdamW(params, settings.lr, foreach=True, **common(settings))
    return torch_pipeline(optimizer, params, form, settings)


def fused(params: Parameters, form: Form, settings: Settings) -> Pipeline:
    kind = torch.optim.SGD if settings.optimizer == "sgd" else torch.optim.AdamW
    optimizer = kind(params, settings.lr, fused=True, **common(settings))
    pipeline = torch_pipeline(optimizer, params, form, settings)
    return with_passes(pipeline, params, settings) if settings.rider else pipeline


def with_passes(pipeline: Pipeline, params: Parameters, settings: Settings) -> Pipeline:
    """Around torch's step what lrfused does within."""
    passes = rider_costs.find(settings.rider).passes(params, pipeline.optimizer, settings)

    def step() -> None:
        passes.before()
        pipeline.step()
        passes.after()

    return Pipeline(step, pipeline.optimizer, lambda: passes.averages)


def compiled(params: Parameters, form: Form, settings: Settings) -> Pipeline:
    """A Tensor lr, or each of its values would be compiled anew."""
    torch.compiler.reset()  # what was compiled for earlier optimizers is looked up at every call
    lr = torch.tensor(settings.lr, device=params[0].device)
    kind = {"foreach": True, "capturable": True}
    optimizer = torch.optim.AdamW(params, lr, **kind, **common(settings))
    return torch_pipeline(optimizer, params, form, settings, compiled=True)


def deepspeed(params: Parameters, form: Form, settings: Settings) -> Pipeline:
    """CPUAdam with its state in the parameters' dtype, as the other providers have it."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    kind = {"adamw_mode": True, "fp32_optimizer_states": params[0].dtype == torch.float32}
    optimizer = DeepSpeedCPUAdam(params, settings.lr, **kind, **common(settings))
    return torch_pipeline(optimizer, params, form, settings)


def fused_whole(
    params: Parameters, form: Form, settings: Settings, backend: str = "auto", **options: Any
) -> Pipeline:
    """lrfused: one object, whose one call is the whole pipeline."""
    warmup, total = settings.warmup_steps, settings.total_steps
    lr = schedules.warmup_cosine(settings.lr, warmup, total, start="1/n")
    optimizer = getattr(lrfused, OWN[settings.optimizer])(
        params,
        lr=lr if form.clips else settings.lr,
        max_grad_norm=settings.max_grad_norm if form.clips else None,
        loss_scale=lrfused.LossScale(init=settings.loss_scale) if form.unscales else None,
        backend=backend,
        **rider_costs.find(settings.rider).arguments(params, settings),
        **common(settings),
        **options,
    )
    optimizer.scale(torch.zeros(()))  # the gradients that are made here are scaled already
    averages = [optimizer.state[p] for p in params] if settings.rider == "average" else []
    return Pipeline(optimizer.step, optimizer, lambda: [state[AVERAGE] for state in averages])
