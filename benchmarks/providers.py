"""The optimizers that are compared, each with everything that a form puts around its step."""

import importlib.util
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
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

MOMENT_ACCESSES = 4  # m and v are read and written
# The tensors of each optimizer's state, which are read and written.
STATE = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",), "lion": ("exp_avg",)}
ALL = tuple(STATE)
PLAIN = "plain-"  # begins the name of a provider that steps without the others' rider


@dataclass(frozen=True)
class Pipeline:
    """What is timed; the optimizer, whose state shows whether it is right; where averages are."""

    step: Callable[[], Any]
    optimizer: torch.optim.Optimizer
    averages: Callable[[], list[torch.Tensor]] = list


Moments = Callable[[torch.optim.Optimizer, Parameter], tuple[torch.Tensor, ...]]


def in_state(*names: str) -> Moments:
    """Moments that stand in the state as they are, under these names."""
    return lambda optimizer, param: tuple(optimizer.state[param][name] for name in names)


def as_torch(optimizer: torch.optim.Optimizer, param: Parameter) -> tuple[torch.Tensor, ...]:
    """Those of the optimizer in the order of its rule, as torch names them."""
    state = optimizer.state[param]
    names = next(names for names in STATE.values() if state.keys() >= set(names))
    return tuple(state[name] for name in names)


@dataclass(frozen=True)
class Provider:
    """One contestant.

    Attributes:
        build: makes its pipeline for a form.
        accesses: elements read and written a parameter by AdamW, by form; the least that its
            algorithm can do when nothing stays in a cache.
        norm_error: relative error of the gradient norm to be put up with, by dtype.
        missing: why it cannot run here, or None.
        most_tensors: it is left out where there are more.
        skips: names of other workloads that it is left out of.
        moments: m and v of a parameter (or what its rule has), as its optimizer has them.
        float32_moments: they are float32 whatever the parameters are.
        optimizers: those that it has.
        ride_bytes: what a rider adds to the bytes, by its name, form and dtype; None: it is not
            timed with riders.
        is_plain: it steps without the rider of the others.
    """

    name: str
    title: str
    build: Callable[[Parameters, Form, Settings], Pipeline]
    accesses: dict[str, int]
    norm_error: dict[str, float]
    missing: Callable[[], str | None] = lambda: None
    most_tensors: float = math.inf
    skips: tuple[str, ...] = ()
    moments: Moments = as_torch
    float32_moments: bool = False
    optimizers: tuple[str, ...] = ("adamw",)
    ride_bytes: Callable[[str, Form, torch.dtype], float] | None = None
    is_plain: bool = False

    def bytes_per_parameter(
        self, form: Form, dtype: torch.dtype, optimizer: str = "adamw", rider: str = ""
    ) -> float:
        wider = MOMENT_ACCESSES * (4 - dtype.itemsize) if self.float32_moments else 0
        fewer = MOMENT_ACCESSES - 2 * len(STATE[optimizer])
        added = self.ride_bytes(rider, form, dtype) if self.ride_bytes else 0
        return (self.accesses[form.name] - fewer) * dtype.itemsize + wider + added


def with_plain(providers: Iterable[Provider], rider: str) -> list[Provider]:
    """With each once more, without the rider: in the same rounds the difference is its cost."""
    found = list(providers)
    rides = [p for p in found if rider and p.ride_bytes]
    return found + [replace(p, name=PLAIN + p.name, is_plain=True) for p in rides]


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
    params: Parameters, form: Form, settings: Settings, backend: str = "auto"
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
    )
    optimizer.scale(torch.zeros(()))  # the gradients that are made here are scaled already
    averages = [optimizer.state[p] for p in params] if settings.rider == "average" else []
    return Pipeline(optimizer.step, optimizer, lambda: [state[AVERAGE] for state in averages])


# By name, as an older checkout that is timed beside this one may have fewer.
AVERAGE = "lrfused_average"
OWN = {"adamw": "AdamW", "sgd": "SGD", "lion": "Lion"}


def torch_ride_bytes(rider: str, form: Form, dtype: torch.dtype) -> float:
    return rider_costs.find(rider).torch_bytes(form, dtype)


def own_ride_bytes(rider: str, form: Form, dtype: torch.dtype) -> float:
    return rider_costs.find(rider).own_bytes(form, dtype)


def not_found(module: str) -> Callable[[], str | None]:
    """Says that a module cannot be imported, if so."""
    return lambda: None if importlib.util.find_spec(module) else "not installed"


def _separate(step: int) -> dict[str, int]:
    """The norm reads g, the clip and the unscaling each read and write it."""
    return {"step": step, "clip": step + 3, "unscale": step + 5}


# p, g, m, v are read and p, m, v written; op by op: mul, lerp, mul, addcmul, sqrt, div, add and
# addcdiv read and write 20 in all.
ONE_PASS, OP_BY_OP = _separate(7), _separate(20)
# g is read once more, where something global has to be known first.
MEASURED_FIRST = {"step": 7, "clip": 8, "unscale": 8}
# torch adds the squares of a tensor in its own dtype: 1e-2 is lost over 100M elements.
TORCH_NORM = {"float32": 2e-2, "bfloat16": 3e-2}
OWN_NORM = {"float32": 0.0, "bfloat16": 0.0}

PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("loop", "torch for-loop", loop, OP_BY_OP, TORCH_NORM),
        Provider("foreach", "torch foreach", foreach, OP_BY_OP, TORCH_NORM),
        Provider(
            "fused",
            "torch fused",
            fused,
            ONE_PASS,
            TORCH_NORM,
            optimizers=("adamw", "sgd"),
            ride_bytes=torch_ride_bytes,
        ),
        # Compiling takes time that grows with the tensors: a minute for 148.
        Provider(
            "compile",
            "torch.compile",
            compiled,
            ONE_PASS,
            TORCH_NORM,
            most_tensors=200,
            skips=("tiny148", "tiny148-fresh"),
        ),
        Provider(
            "deepspeed",
            "DeepSpeed CPUAdam",
            deepspeed,
            ONE_PASS,
            TORCH_NORM,
            not_found("deepspeed"),
        ),
        Provider(
            "lrfused",
            "lrfused",
            fused_whole,
            MEASURED_FIRST,
            OWN_NORM,
            optimizers=ALL,
            ride_bytes=own_ride_bytes,
        ),
    )
}
TORCH = ("loop", "foreach", "fused", "compile")
