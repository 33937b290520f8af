"""Tensors in odd places of memory, and runs that can be disturbed and compared as a whole."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from lib.optimizers import Kind, kind_of
from lib.runs import (  # beside this
    assert_same_bits,
    assert_same_contents,
    bits,
    give_gradient,
    needs_cpp,
)
from torch import Tensor

import lrfused
from lrfused import schedules as S

__all__ = [
    "Buffer",
    "Layout",
    "Training",
    "accepting",
    "assert_same_bits",
    "assert_same_contents",
    "assert_same_state",
    "bits",
    "everything",
    "give_gradient",
    "needs_cpp",
    "normal",
]


def normal(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Normal values of any of the dtypes that a step takes."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, generator=generator, dtype=wide).to(dtype)


def accepting(value: Tensor) -> torch.nn.Parameter:
    """A parameter, not a copy, that accepts a gradient of any dtype."""
    parameter = torch.nn.Parameter(value)
    if hasattr(parameter, "grad_dtype"):  # newer torch refuses another dtype otherwise
        parameter.grad_dtype = None
    return parameter


# Layouts


@dataclass(frozen=True)
class Layout:
    """Where the elements of a tensor lie.

    The dimensions follow each other in memory as ``order`` says, outermost first; neighbours are
    ``step`` elements apart, ``pad`` elements follow each stretch of a dimension, ``offset`` come
    first. ``bit`` is that of a lazy conjugate ("conj") or a lazy sign ("neg").
    """

    order: tuple[int, ...]
    step: int = 1
    pad: int = 0
    offset: int = 0
    bit: str = ""

    def strides(self, shape: tuple[int, ...]) -> list[int]:
        """The strides of a tensor of a shape."""
        strides, stride = [0] * len(shape), self.step
        for dim in reversed(self.order):
            strides[dim] = stride
            stride = stride * max(shape[dim], 1) + self.pad
        return strides


class Buffer:
    """A tensor as a view into larger memory that is nan everywhere else."""

    def __init__(self, value: Tensor, layout: Layout):
        strides = layout.strides(tuple(value.shape))
        last = sum(s * (n - 1) for s, n in zip(strides, value.shape, strict=True))
        size = layout.offset + (last + 1 if value.numel() else 0) + 5
        self.memory = torch.full((size,), torch.nan, dtype=value.dtype)
        place = (value.shape, strides, layout.offset)
        plain = self.memory.as_strided(*place)
        plain.copy_(_lazily(value, layout.bit).resolve_conj().resolve_neg())
        self.view = _lazily(plain, layout.bit)
        self.outside = torch.ones(size, dtype=torch.bool)
        self.outside.as_strided(*place).fill_(False)

    def assert_only_inside(self) -> None:
        """Nothing was written beside the view."""
        assert torch.isnan(self.memory[self.outside]).all(), "memory beside a tensor was written"


def _lazily(x: Tensor, bit: str) -> Tensor:
    """The conjugate or the negative, only noted by a bit."""
    return {"": lambda: x, "conj": x.conj, "neg": lambda: torch._neg_view(x)}[bit]()


# Runs


class Training:
    """A run with two groups, schedules, a loss scale, riders, a parameter with gaps in memory."""

    def __init__(self, seed: int, kind: Kind, backend: str, size: int = 4):
        self.seed = seed
        values = [self.random(-i, shape) for i, shape in enumerate([(3, 4), (size, 3), (5,)])]
        values[1] = Buffer(values[1], Layout((0, 1), step=2)).view
        self.params = [accepting(value) for value in values]
        self.knob = torch.tensor(1.0)
        own = {"eps": 1e-5} if "eps" in kind.hyperparameters else {"weight_decay": 0.2}
        self.opt = kind.ours(
            [
                {"params": self.params[:2], "lr": S.warmup_cosine(1e-2, 3, 30)},
                {"params": self.params[2:], "lr": S.linear(0.1, 0.01, 20), **own},
            ],
            ema_decay=S.linear(0.5, 0.9, 10),
            masks={self.params[1]: self.random(99, tuple(values[1].shape)) > -0.5},
            zero_grads=True,
            **_steered(kind, S.linear(0.8, 0.9, 10) * S.input(self.knob, "knob")),
            max_grad_norm=1.0,
            loss_scale=lrfused.LossScale(init=4.0, growth_interval=2),
            **kind.carrying,
            backend=backend,
        )

    def random(self, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        """The same values for the same number."""
        generator = torch.Generator().manual_seed(self.seed + number)
        return normal(generator, shape, torch.float32)

    def loss(self, step: int) -> torch.Tensor:
        """Its gradients are 3 x random numbers."""
        products = [
            (p * self.random(1000 * step + i, tuple(p.shape))).sum()
            for i, p in enumerate(self.params)
        ]
        return 3 * torch.stack(products).sum()

    def backward(self, step: int) -> torch.Tensor:
        """Fresh gradients."""
        self.opt.zero_grad()
        loss = self.loss(step)
        self.opt.scale(loss)  # asked for, and left aside: the gradients are what they are
        loss.backward()
        return loss

    def run(self, first: int, last: int) -> None:
        """Undisturbed steps."""
        for step in range(first, last):
            self.backward(step)
            self.opt.step()

    def now(self) -> dict[str, Any]:
        """Everything that a step may change."""
        return everything(self.params, self.opt)


def _steered(kind: Kind, beta: S.Schedule) -> dict[str, Any]:
    """A hyperparameter of this kind that follows the schedule, from which a state comes if any."""
    if "betas" in kind.hyperparameters:
        return {"betas": (beta, 0.99)}
    return {"momentum": beta} if "momentum" in kind.hyperparameters else {"weight_decay": beta}


def everything(params: list[torch.nn.Parameter], opt: lrfused.FusedOptimizer) -> dict[str, Any]:
    """All that a step may change: parameters, gradients, what a checkpoint holds, metrics."""
    metrics, saved = opt.metrics(), opt.state_dict()
    kind, tensors, others = kind_of(opt), {}, {}
    known = {"p", "grad", "lrfused_average", "lrfused_mask", *kind.sizes}
    known |= {"step"} if kind.counts else set()
    for i, p in enumerate(params):
        for key, value in {"p": p, "grad": p.grad, **saved["state"].get(i, {})}.items():
            if key not in known:
                others[key, i] = _said(value)  # whatever a checkpoint brought along
            elif value is not None:
                tensors[f"{key}[{i}]"] = value.detach().clone()
    return {
        "tensors": tensors,
        "metrics": repr(metrics),
        "numbers": _said((saved["param_groups"], others)),
    }


def _said(value: Any) -> str:
    """Its repr, but for where in memory an object is that a damaged file brought along."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def assert_same_state(got: dict[str, Any], want: dict[str, Any]) -> None:
    """The same in every bit."""
    __tracebackhide__ = True
    assert_same_contents(got["tensors"], want["tensors"])
    assert got["metrics"] == want["metrics"]
    assert got["numbers"] == want["numbers"]
