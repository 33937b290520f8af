"""No time is reported for a wrong result: a few steps against float64, before anything is timed."""

from dataclasses import dataclass

import torch
from data import NORMS, Data, Settings
from providers import Pipeline, Provider, warmup_cosine
from torch import Tensor
from torch.nn import Parameter

# Of parameters and moments after len(NORMS) steps, relative to the size of the terms that they
# are sums of. A bfloat16 keeps 8 bits and is rounded several times a step.
BOUNDS = {"float32": 2e-6, "bfloat16": 2.0**-5}


class WrongResult(Exception):
    """A provider's parameters or moments are not those of the reference."""


@dataclass
class Reference:
    """Values after all steps, in float64, and the size of the terms that they are sums of."""

    values: dict[str, Tensor]
    sizes: dict[str, Tensor]


def reference(data: Data, settings: Settings) -> Reference:
    """One period of the workload, stepped by the formulas of AdamW."""
    p = data.initial.double()
    m, v, m_size = (torch.zeros_like(p) for _ in range(3))
    p_size = p.abs()
    beta1, beta2 = settings.betas
    for step, pool in enumerate(data.gradients):
        g, lr = pool.double() / data.scale, settings.lr
        if data.case.form.clips:
            lr *= warmup_cosine(step, settings)
            g *= min(1.0, settings.max_grad_norm / (data.norm(pool) / data.scale + 1e-6))
        m = beta1 * m + (1.0 - beta1) * g
        m_size = beta1 * m_size + (1.0 - beta1) * g.abs()
        v = beta2 * v + (1.0 - beta2) * g.square()
        root = (v / (1.0 - beta2 ** (step + 1))).sqrt() + settings.eps
        correction = lr / (1.0 - beta1 ** (step + 1))
        p = p * (1.0 - lr * settings.weight_decay) - correction * m / root
        p_size = p_size + correction * m_size / root
    return Reference({"p": p, "m": m, "v": v}, {"p": p_size, "m": m_size, "v": v})


def check(
    provider: Provider,
    pipeline: Pipeline,
    params: list[Parameter],
    data: Data,
    expected: Reference,
) -> dict[str, float]:
    """Take the steps of the reference and compare every element.

    Returns:
        The largest deviations of p, m and v.

    Raises:
        WrongResult: a deviation is above its bound, or not a number.
    """
    for step in range(len(NORMS)):
        data.write_gradients(params, step)
        pipeline.step()
    found = {}
    for name, bound in bounds(provider, data).items():
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
    """By name; a wrong norm shows once in m and p, squared in v."""
    dtype = data.case.dtype_name
    norm_error = provider.norm_error[dtype] if data.case.form.clips else 0.0
    return {name: BOUNDS[dtype] + (2 if name == "v" else 1) * norm_error for name in "pmv"}


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
    place = "mv".index(name)
    return [provider.moments(pipeline.optimizer, param)[place] for param in params]
