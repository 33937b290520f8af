"""The contestants on a GPU: torch's pipelines, other projects' optimizers where they import.

Only those whose moments can be compared with the reference take part: nothing quantised.
"""

from collections.abc import Callable
from functools import partial

import torch
from data import Settings
from pipelines import Parameters, Pipeline, common, fused_whole, torch_pipeline
from providers import (
    ALL,
    MEASURED_FIRST,
    ONE_PASS,
    OWN_NORM,
    PROVIDERS,
    TORCH_NORM,
    Provider,
    in_state,
    not_found,
    own_ride_bytes,
)
from torch.nn import Parameter
from workloads import Form

from lrfused import native
from lrfused.backends.registry import BACKENDS

Make = Callable[[Parameters, Settings], torch.optim.Optimizer]


def optimi(params: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Its Triton kernel; without Kahan sums, which the others do not have either."""
    from optimi import AdamW

    return AdamW(params, settings.lr, kahan_sum=False, triton=True, **common(settings))


def debiased(
    optimizer: torch.optim.Optimizer, param: Parameter
) -> tuple[torch.Tensor, torch.Tensor]:
    """optimi keeps m and v divided by the bias corrections."""
    group, state = optimizer.param_groups[0], optimizer.state[param]
    steps = int(group["step"])
    m, v = (1.0 - group[beta] ** steps for beta in ("beta1", "beta2"))
    return state["exp_avg"] * m, state["exp_avg_sq"] * v


def flashoptim(params: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Moments as they are and no master weights: what the others do."""
    from flashoptim import FlashAdamW

    plain = {"quantize": False, "master_weight_bits": None}
    return FlashAdamW(params, settings.lr, **plain, **common(settings))


def materialized(
    optimizer: torch.optim.Optimizer, param: Parameter
) -> tuple[torch.Tensor, torch.Tensor]:
    """FlashOptim wraps what it does not quantise, too."""
    state = optimizer.state[param]
    return state["exp_avg"].materialize(), state["exp_avg_sq"].materialize()


def torchao(params: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """The one of its optimizers that does not quantise; compiled by parameter."""
    from torchao.optim import _AdamW

    return _AdamW(params, torch.tensor(settings.lr), **common(settings))


def bitsandbytes(params: Parameters, settings: Settings) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW32bit

    return AdamW32bit(params, settings.lr, **common(settings))


def apex(params: Parameters, settings: Settings) -> torch.optim.Optimizer:
    from apex.optimizers import FusedAdam

    return FusedAdam(params, settings.lr, adam_w_mode=True, **common(settings))


def transformer_engine(params: Parameters, settings: Settings) -> torch.optim.Optimizer:
    from transformer_engine.pytorch.optimizers import FusedAdam

    return FusedAdam(params, settings.lr, adam_w_mode=True, **common(settings))


def deepspeed(params: Parameters, settings: Settings) -> torch.optim.Optimizer:
    from deepspeed.ops.adam import FusedAdam

    return FusedAdam(params, settings.lr, adam_w_mode=True, **common(settings))


def in_pipeline(make: Make, params: Parameters, form: Form, settings: Settings) -> Pipeline:
    """torch's clip, scheduler and scaler around another project's step."""
    return torch_pipeline(make(params, settings), params, form, settings)


def other(name: str, title: str, module: str, make: Make, **facts: object) -> Provider:
    """A provider from a module that may not be installed."""
    build = partial(in_pipeline, make)
    return Provider(name, title, build, ONE_PASS, TORCH_NORM, not_found(module), **facts)  # type: ignore[arg-type]


def unavailable(backend: str) -> str | None:
    """Why a backend of lrfused cannot be timed, if so."""
    return BACKENDS[backend].why_unavailable()


def own(backend: str) -> Provider:
    return Provider(
        f"lrfused-{backend}",
        f"lrfused ({backend})",
        partial(fused_whole, backend=backend),
        MEASURED_FIRST,
        OWN_NORM,
        partial(unavailable, backend),
        optimizers=ALL,
        ride_bytes=own_ride_bytes,
    )


def no_configure() -> str | None:
    """Why launches cannot be changed, if so."""
    reason = unavailable("cuda")
    if reason is None and not hasattr(native.cuda, "configure"):
        return "not available: lrfused._cuda has no configure"
    return reason


def launched_without(switch: str, params: Parameters, form: Form, settings: Settings) -> Pipeline:
    """lrfused-cuda with one of the switches off, which is on again behind each step."""
    assert native.cuda is not None
    made, configure = fused_whole(params, form, settings, backend="cuda"), native.cuda.configure

    def step() -> None:
        configure(**{switch: False})
        made.step()
        configure(**{switch: True})

    return Pipeline(step, made.optimizer)


def variant(name: str, switch: str) -> Provider:
    """The CUDA backend without something that its launches have."""
    return Provider(
        f"lrfused-cuda-{name}",
        f"lrfused (cuda, {name.replace('-', ' ')})",
        partial(launched_without, switch),
        MEASURED_FIRST,
        OWN_NORM,
        no_configure,
    )


# "lrfused" is whatever the backend "auto" is.
OWN_PROVIDERS = {provider.name: provider for provider in (own("cuda"), own("triton"))}
VARIANTS = {
    provider.name: provider
    for provider in (
        variant("serial-launch", "dependent_launch"),
        variant("own-carveout", "equal_carveout"),
    )
}
GPU_PROVIDERS = {
    provider.name: provider
    for provider in (
        PROVIDERS["fused"],
        PROVIDERS["foreach"],
        *OWN_PROVIDERS.values(),
        *VARIANTS.values(),
        PROVIDERS["compile"],
        other("optimi", "optimi", "optimi", optimi, moments=debiased),
        other("flashoptim", "FlashOptim", "flashoptim", flashoptim, moments=materialized),
        other("torchao", "torchao", "torchao", torchao, most_tensors=200),
        other(
            "bitsandbytes",
            "bitsandbytes",
            "bitsandbytes",
            bitsandbytes,
            moments=in_state("state1", "state2"),
            float32_moments=True,
        ),
        other("apex", "apex FusedAdam", "apex", apex, float32_moments=True),
        other(
            "transformer-engine",
            "Transformer Engine",
            "transformer_engine",
            transformer_engine,
            float32_moments=True,
        ),
        other("deepspeed-fused", "DeepSpeed FusedAdam", "deepspeed", deepspeed),
    )
}
