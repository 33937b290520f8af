"""What the tests of the drop-in contract share: parameters, gradients, comparisons."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

import lrfused
from lib.optimizers import kind_of
from lrfused import schedules

SHAPES = ((7, 5), (13,), (), (2, 3, 4))
STATE_KEYS = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
STATE_KEYS += ("momentum_buffer", "lrfused_buffer_written", "lrfused_average")


def make_parameters(
    rng: Any, dtype: torch.dtype = torch.float32, shapes: Iterable[tuple[int, ...]] = SHAPES
) -> list[Parameter]:
    """Fresh random parameters."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return [Parameter(torch.randn(s, generator=rng.torch, dtype=wide).to(dtype)) for s in shapes]


def twin(params: Iterable[Tensor]) -> list[Parameter]:
    """Parameters of the same values in memory of their own."""
    return [Parameter(p.detach().clone(), p.requires_grad) for p in params]


def parameters_of(opt: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters of an optimizer, in order."""
    return [p for group in opt.param_groups for p in group["params"]]


def give_gradients(rng: Any, *optimizers: torch.optim.Optimizer, scale: float = 1.0) -> None:
    """The same fresh random gradients for each of the optimizers, as if of a scaled loss."""
    for opt in optimizers:
        if isinstance(opt, lrfused.FusedOptimizer):
            opt.scale(torch.zeros(()))
    for together in zip(*map(parameters_of, optimizers), strict=True):
        like = together[0]
        wide = torch.complex128 if like.is_complex() else torch.float64
        gradient = scale * torch.randn(like.shape, generator=rng.torch, dtype=wide)
        for param in together:
            param.grad = gradient.to(param.dtype) if param.requires_grad else None


def run(
    rng: Any,
    steps: int,
    *optimizers: torch.optim.Optimizer,
    after: Callable[[int], None] = lambda _: None,
) -> None:
    """Train the optimizers on the same random gradients; ``after`` each step."""
    for step in range(steps):
        give_gradients(rng, *optimizers)
        for opt in optimizers:
            opt.step()
        after(step)


def tensors_of(opt: torch.optim.Optimizer) -> list[Tensor]:
    """Copies of everything that a step changes: parameters, moments, step counts; and the masks."""
    found = []
    for param in parameters_of(opt):
        state = opt.state.get(param, {})
        values = [param] + [torch.as_tensor(state[k]) for k in STATE_KEYS if k in state]
        found += [value.detach().clone() for value in values]
    return [*found, *getattr(opt, "masks", {}).values()]


def assert_same_bits(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> None:
    """Equal in shape, dtype and every bit; all nan count as equal."""
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.dtype == b.dtype, f"tensor {index}: {a.dtype} and {b.dtype}"
        torch.testing.assert_close(a, b, rtol=0.0, atol=0.0, equal_nan=True, msg=f"tensor {index}")


def assert_same_run(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer) -> None:
    """Two optimizers stand at the same place: parameters and state in every bit."""
    assert_same_bits(tensors_of(ours), tensors_of(theirs))


def assert_near(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer) -> None:
    """Parameters and state of two optimizers whose parameters and gradients are of size 1.

    Each element within the bound of their kind (AdamW: 1e-6, float64: 1e-12): of its own size what
    only adds up, as second moments; of size 1 or more where large terms may cancel.
    """
    kind = kind_of(ours)
    couples = zip(parameters_of(ours), parameters_of(theirs), strict=True)
    for index, (a, b) in enumerate(couples):
        mine, other = shown_state(ours, a), shown_state(theirs, b)
        assert set(mine) == set(other), f"state of parameter {index}"
        assert float(mine.pop("step", 0)) == float(other.pop("step", 0))
        _assert_elements_near(f"parameter {index}", a, b, 1.0, kind.bound)
        for key, tensor in mine.items():
            _assert_elements_near(f"{key} {index}", tensor, other[key], kind.sizes[key], kind.bound)


def shown_state(opt: torch.optim.Optimizer, param: Tensor) -> dict[str, Any]:
    """What torch's optimizers have, too; torch.optim.SGD's None is what ours leaves out."""
    own = kind_of(opt).own
    state = opt.state.get(param, {})
    return {key: x for key, x in state.items() if key not in own and x is not None}


def _assert_elements_near(name: str, a: Tensor, b: Tensor, size: float, bound: float) -> None:
    assert a.dtype == b.dtype and a.shape == b.shape, name
    bound *= 1e-6 if b.dtype in (torch.float64, torch.complex128) else 1.0
    excess = (a - b).detach().abs() - bound * b.detach().abs().clamp(min=size)
    assert not (excess > 0).any(), f"{name}: {excess.max().item():.3g} beyond the bound {bound}"
    assert bool(torch.isfinite(a).all() == torch.isfinite(b).all()), name


def snapshot(opt: lrfused.FusedOptimizer) -> dict[str, Any]:
    """Everything that a refused call has to leave as it was."""
    saved = opt.state_dict()
    return {
        "tensors": tensors_of(opt),
        "state": {i: sorted(state) for i, state in saved["state"].items()},
        "groups": [
            {k: v.item() if isinstance(v, Tensor) else v for k, v in group.items()}
            for group in saved["param_groups"]
        ],
        "metrics": {k: opt.metrics()[k] for k in ("steps", "skipped_steps", "loss_scale")},
    }


def assert_unchanged(opt: lrfused.FusedOptimizer, before: dict[str, Any]) -> None:
    """Nothing has moved since the snapshot."""
    now = snapshot(opt)
    assert_same_bits(now.pop("tensors"), before["tensors"])
    assert now == {k: v for k, v in before.items() if k != "tensors"}


def warmup(peak: float = 0.01) -> schedules.Schedule:
    """A schedule of which every step differs from its neighbours for a while."""
    return schedules.warmup_cosine(peak, warmup_steps=7, total_steps=40)
