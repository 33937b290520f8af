"""The optimizers that are compared, and what each may read and write."""

import importlib.util
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import rider_costs
import torch
from data import Settings
from pipelines import Parameters, Pipeline, compiled, deepspeed, foreach, fused, fused_whole, loop
from torch.nn import Parameter
from workloads import Form

MOMENT_ACCESSES = 4  # m and v are read and written
# The tensors of each optimizer's state, which are read and written.
STATE = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",), "lion": ("exp_avg",)}
ALL = tuple(STATE)
PLAIN = "plain-"  # begins the name of a provider that steps without the others' rider


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
