"""No time is reported for a wrong result: a few steps against float64, before anything is timed."""

from dataclasses import dataclass

import rider_costs
import torch
from data import NORMS, Data, Settings
from pipelines import Pipeline, warmup_cosine
from providers import Provider
from torch import Tensor
from torch.nn import Parameter

# Of parameters and moments after len(NORMS) steps, relative to the size of the terms that they
# are sums of. A bfloat16 keeps 8 bits and is rounded several times a step.
TINY = 1e-300  # the size of what is exactly 0: anything else is far beyond every bound
BOUNDS = {"float32": 2e-6, "bfloat16": 2.0**-5}


class WrongResult(Exception):
    """A provider's parameters or moments are not those of the reference."""


@dataclass
class Reference:
    """Values after all steps, in float64, and the size of the terms that they are sums of."""

    values: dict[str, Tensor]
    sizes: dict[str, Tensor]


def reference(data: Data, settings: Settings) -> Reference:
    """One period of the workload, stepped by the formulas of the settings' optimizer."""
    p = data.initial.double()
    masked = settings.rider == "masks"
    kept = rider_costs.mask_pool(data.total, p.device) if masked else torch.ones_like(p)
    p = p * kept
    made = RULES[settings.optimizer](p, settings)
    p_size, bound = p.abs(), BOUNDS.get(data.case.dtype_name, 0.0)
    average = Average(p, settings.ema_decay)
    for step, pool in enumerate(data.gradients):
        pool = pool * kept
        g, lr = pool.double() / data.scale, settings.lr
        if data.case.form.clips:
            lr *= warmup_cosine(step, settings)
            g *= min(1.0, settings.max_grad_norm / (data.norm(pool) / data.scale + 1e-6))
        p, added = made.step(p, g, lr, bound)
        p_size = p_size + added
        average.update(p, p_size)
    values, sizes = {"p": p, **made.values()}, {"p": p_size, **made.sizes()}
    if settings.rider == "average":
        values["a"], sizes["a"] = average.value, average.size
    if settings.rider == "zero-grads":
        values["g"] = sizes["g"] = torch.zeros_like(p)
    return Reference(values, {name: size.clamp_min(TINY) for name, size in sizes.items()})


class Average:
    """Of the parameters; the first update copies."""

    def __init__(self, p: Tensor, decay: float):
        self.decay, self.value, self.size = decay, torch.full_like(p, torch.nan), p

    def update(self, p: Tensor, size: Tensor) -> None:
        """With new parameters, and the size of their terms."""
        is_first = self.value.isnan().any()
        decay = 0.0 if is_first else self.decay
        last = torch.zeros_like(p) if is_first else self.value
        self.value = decay * last + (1.0 - decay) * p
        self.size = decay * self.size + (1.0 - decay) * size


class AdamW:
    """Its moments."""

    def __init__(self, p: Tensor, settings: Settings):
        self.settings, self.steps = settings, 0
        self.m, self.v, self.m_size = (torch.zeros_like(p) for _ in range(3))

    def step(self, p: Tensor, g: Tensor, lr: float, bound: float) -> tuple[Tensor, Tensor]:
        """The new parameters, and the size of the terms that were added to them."""
        beta1, beta2 = self.settings.betas
        self.steps += 1
        self.m = beta1 * self.m + (1.0 - beta1) * g
        self.m_size = beta1 * self.m_size + (1.0 - beta1) * g.abs()
        self.v = beta2 * self.v + (1.0 - beta2) * g.square()
        root = (self.v / (1.0 - beta2**self.steps)).sqrt() + self.settings.eps
        correction = lr / (1.0 - beta1**self.steps)
        p = p * (1.0 - lr * self.settings.weight_decay) - correction * self.m / root
        return p, correction * self.m_size / root

    def values(self) -> dict[str, Tensor]:
        return {"m": self.m, "v": self.v}

    def sizes(self) -> dict[str, Tensor]:
        return {"m": self.m_size, "v": self.v}


class OneMoment:
    """Of an optimizer with one."""

    def __init__(self, p: Tensor, settings: Settings):
        self.settings, self.m, self.m_size = settings, torch.zeros_like(p), torch.zeros_like(p)

    def values(self) -> dict[str, Tensor]:
        return {"m": self.m}

    def sizes(self) -> dict[str, Tensor]:
        return {"m": self.m_size}


class SGD(OneMoment):
    """With momentum, and decay as a part of the gradient."""

    def step(self, p: Tensor, g: Tensor, lr: float, bound: float) -> tuple[Tensor, Tensor]:
        """As AdamW's."""
        g = g + self.settings.weight_decay * p
        self.m = self.settings.momentum * self.m + g
        self.m_size = self.settings.momentum * self.m_size + g.abs()
        return p - lr * self.m, lr * self.m_size


class Lion(OneMoment):
    """Where a sign may be either, by rounding, a parameter may be anything."""

    def step(self, p: Tensor, g: Tensor, lr: float, bound: float) -> tuple[Tensor, Tensor]:
        """As AdamW's."""
        beta1, beta2 = self.settings.betas
        direction = beta1 * self.m + (1.0 - beta1) * g
        size = beta1 * self.m_size + (1.0 - beta1) * g.abs()
        self.m = beta2 * self.m + (1.0 - beta2) * g
        self.m_size = beta2 * self.m_size + (1.0 - beta2) * g.abs()
        added = torch.where(direction.abs() <= bound * size, torch.inf, lr)
        return p * (1.0 - lr * self.settings.weight_decay) - lr * direction.sign(), added


RULES = {"adamw": AdamW, "sgd": SGD, "lion": Lion}


def check(
    provider: Provider,
    pipeline: Pipeline,
    params: list[Parameter],
    data: Data,
    expected: Reference,
) -> dict[str, float]:
    """Take the steps of the reference and compare every element.

    Returns:
        The largest deviations of p, m and v, of which only AdamW has the last, and of what a rider
        leaves behind.

    Raises:
        WrongResult: a deviation is above its bound, or not a number.
    """
    for step in range(len(NORMS)):
        data.write_gradients(params, step)
        pipeline.step()
    found = {}
    for name, bound in bounds(provider, data).items():
        if name not in expected.values:
            continue
        pools = expected.values[name], expected.sizes[name]
        tensors = zip(_tensors(name, provider, pipeline, params), data.starts, strict=True)
        found[name] = _largest([deviation(t, start, data, *pools) for t, start in tensors])
        if not found[name] <= bound:
            raise WrongResult(
                f"{name} is off by {found[name]:.2e} of its size after {len(NORMS)} steps, "
                f"the bound is {bound:.2e}"
            )
    return found


def bounds(provider: Provider, data: Data) -> dict[str, float]:
    """By name (a: the average, g: what is left); a wrong norm is once in m and p, squared in v."""
    dtype = data.case.dtype_name
    norm_error = provider.norm_error[dtype] if data.case.form.clips else 0.0
    return {name: BOUNDS[dtype] + (2 if name == "v" else 1) * norm_error for name in "pmvag"}


def deviation(tensor: Tensor, start: int, data: Data, values: Tensor, sizes: Tensor) -> float:
    """The largest difference from the reference, relative to the size; nan if one is there."""
    return _largest(
        [
            float((piece.double() - values[place]).abs_().div_(sizes[place]).amax())
            for piece, place in data.pieces(tensor, start)
        ]
    )


def _largest(deviations: list[float]) -> float:
    """nan if there is one: Python's ``max`` may pass over it."""
    return float(torch.tensor(deviations, dtype=torch.float64).amax())


def _tensors(
    name: str, provider: Provider, pipeline: Pipeline, params: list[Parameter]
) -> list[Tensor]:
    if name == "p":
        return list(params)
    if name == "a":
        return pipeline.averages()
    if name == "g":
        return [param.grad for param in params if param.grad is not None]
    place = "mv".index(name)
    return [provider.moments(pipeline.optimizer, param)[place] for param in params]
