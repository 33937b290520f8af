"""Any shape, layout, alignment and dtype: the backends agree in every bit, and with torch."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lib.contract import shown_state
from lib.optimizers import LION, Kind, with_state

from .helpers import (
    Buffer,
    Layout,
    accepting,
    assert_same_state,
    bits,
    everything,
    give_gradient,
    needs_cpp,
    normal,
)

REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
COMPLEX = (torch.complex64, torch.complex128)
STEPS = 3
# Longer than a chunk of 65536: flat, in units shorter than it, in one unit.
LONG = [(65537,), (3, 21847), (1, 65539)]
OPTIONS = [
    {},
    {"widest": True},  # with all the state that this kind of optimizer may have
    {"maximize": True},
    {"max_grad_norm": 1.0},
    {"agc": 0.1},
    {"agc": 0.1, "agc_by": "tensor", "clip_value": 0.5},
    {"write_grads": True, "clip_value": 0.5, "maximize": True},
    {"loss_scale": 4.0, "max_grad_norm": 0.5, "norm_type": float("inf")},
]

pytestmark = needs_cpp


@dataclass(frozen=True)
class Spec:
    """One parameter: how it and its gradients lie in memory, and when it has a gradient."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    of_gradient: torch.dtype
    layout: Layout
    gradient_layout: Layout
    expanded: int  # dimensions from the first on along which the gradient is one number
    has_gradient: tuple[bool, ...]
    group: int


def layouts(draw, shape, dtype) -> Layout:
    """Dense or not, in any order of the dimensions, anywhere."""
    bit = draw(
        st.sampled_from(["", "", "", "conj", "neg"] if dtype.is_complex else ["", "", "neg"])
    )
    order = tuple(range(len(shape)))
    return Layout(
        draw(st.permutations(order)) if draw(st.booleans()) else order,
        draw(st.sampled_from([1, 1, 1, 2, 3])),
        draw(st.sampled_from([0, 0, 1])),
        draw(st.integers(0, 4)),
        bit,
    )


@st.composite
def models(draw, same_dtype: bool = False) -> list[Spec]:
    """Some small parameters, now and then a long one."""
    small = st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 8]), max_size=5).map(tuple)
    shapes = draw(st.lists(small, max_size=4))
    if draw(st.integers(0, 7)) == 7:
        shapes.insert(draw(st.integers(0, len(shapes))), draw(st.sampled_from(LONG)))
    return [specified(draw, shape, same_dtype) for shape in shapes]


def specified(draw, shape: tuple[int, ...], same_dtype: bool) -> Spec:
    """A parameter of this shape."""
    dtype = draw(st.sampled_from(REAL + COMPLEX))
    kin = (dtype,) if same_dtype else COMPLEX if dtype.is_complex else REAL
    of_gradient = draw(st.sampled_from(kin))
    return Spec(
        shape,
        dtype,
        of_gradient,
        layouts(draw, shape, dtype),
        layouts(draw, shape, of_gradient),
        draw(st.sampled_from([0, 0, 0, 1, 2])),
        tuple(draw(st.booleans()) or draw(st.booleans()) for _ in range(STEPS)),
        draw(st.integers(0, 1)),
    )


class Odd:
    """Parameters as specified; the same values for every optimizer."""

    def __init__(self, model: list[Spec], seed: int):
        self.model = model
        self.generator = torch.Generator().manual_seed(seed)
        self.buffers = [Buffer(normal(self.generator, s.shape, s.dtype), s.layout) for s in model]
        self.params = [accepting(b.view) for b in self.buffers]

    def groups(self, **second):
        """Two groups, the second with its own numbers."""
        both = [
            [p for p, s in zip(self.params, self.model, strict=True) if s.group == g]
            for g in (0, 1)
        ]
        return [{"params": both[0]}, {"params": both[1], **second}]

    def step(self, opt, step: int, writes: bool = False) -> None:
        """One step with random gradients, which it may write or not."""
        gradients: list[Buffer] = []
        for p, s in zip(self.params, self.model, strict=True):
            seen = s.shape
            if not writes:
                seen = tuple(1 if d < s.expanded and n else n for d, n in enumerate(s.shape))
            gradients.append(Buffer(normal(self.generator, seen, s.of_gradient), s.gradient_layout))
            give_gradient(p, gradients[-1].view.expand(s.shape) if s.has_gradient[step] else None)
        before = [g.memory.clone() for g in gradients]
        opt.step()
        for gradient, memory in zip(gradients, before, strict=True):
            gradient.assert_only_inside()
            if not writes:
                assert torch.equal(bits(gradient.memory), bits(memory)), "a gradient was written"
        for buffer in self.buffers:
            buffer.assert_only_inside()


def options_of(kind: Kind, options: dict) -> dict:
    """Those of this kind of optimizer."""
    return kind.widest if options.get("widest") else options


def run(model: list[Spec], seed: int, kind: Kind, backend: str, options: dict) -> tuple[dict, list]:
    """All steps with lrfused; what is left and the metrics of each step."""
    odd, metrics = Odd(model, seed), []
    groups = odd.groups(lr=0.02, weight_decay=0.3)
    opt = kind.ours(groups, backend=backend, **options_of(kind, options))
    for step in range(STEPS):
        odd.step(opt, step, writes=options.get("write_grads", False))
        metrics.append(opt.metrics())
    return everything(odd.params, opt), metrics


EMPTY, PAIR = (
    Spec(shape, torch.float32, torch.bfloat16, Layout((0,)), Layout((0,)), 0, (True,) * STEPS, 0)
    for shape in ((0,), (2,))
)
PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@PATIENT
@given(model=models(), seed=st.integers(0, 2**32), options=st.sampled_from(OPTIONS))
@example(model=[EMPTY, PAIR], seed=1, options=OPTIONS[3])
@example(model=[PAIR, EMPTY, PAIR], seed=1, options=OPTIONS[5])
@example(model=[PAIR, EMPTY], seed=1, options=OPTIONS[6])
@example(model=[EMPTY, EMPTY], seed=1, options=OPTIONS[3])
def test_both_backends_agree_on_odd_inputs(kind, model, seed, options):
    """In every bit of parameters, gradients, state and metrics; nothing beside them is touched."""
    got, metrics = run(model, seed, kind, "cpu", options)
    want, expected = run(model, seed, kind, "reference", options)
    assert_same_state(got, want)
    assert repr(metrics) == repr(expected)


# Relative and absolute, of values of size 1 that move by up to 0.5 a step. torch rounds 16-bit
# numbers after every operation, lrfused once a step; eps is 1 because in float16 the second
# moment of a small gradient is 0 in torch.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.complex128: 1e-12,
    torch.float32: 3e-6,
    torch.complex64: 3e-6,
    torch.float16: 5e-3,
    torch.bfloat16: 3e-2,
}
NUMBERS = {"lr": 0.5, "weight_decay": 0.1}


def without_bits(spec: Spec) -> Spec:
    """The same values, not lazily: torch refuses those in complex numbers."""
    plain, of_gradient = (replace(x, bit="") for x in (spec.layout, spec.gradient_layout))
    return replace(spec, layout=plain, gradient_layout=of_gradient)


@PATIENT
@given(
    model=models(same_dtype=True),
    seed=st.integers(0, 2**32),
    options=st.sampled_from(OPTIONS[:3]),
)
def test_torch_agrees_on_odd_inputs(kind, model, seed, options):
    """What torch.optim.AdamW does with the same tensors, within the tolerance of the dtype."""
    ours, theirs = Odd(model, seed), Odd([without_bits(spec) for spec in model], seed)
    own = {**NUMBERS, **options_of(kind, options)}
    own |= {"eps": 1.0} if "eps" in kind.hyperparameters else {}
    mine = kind.ours(ours.groups(lr=0.25), backend="cpu", **own)
    foreach = {} if kind is LION else {"foreach": False}
    other = kind.theirs(theirs.groups(lr=0.25), **foreach, **own)
    for step in range(STEPS):
        ours.step(mine, step)
        theirs.step(other, step)
    for p, q, spec in zip(ours.params, theirs.params, model, strict=True):
        bound = TOLERANCE[spec.dtype]
        torch.testing.assert_close(p, q, rtol=bound, atol=bound)
        found, expected = shown_state(mine, p), shown_state(other, q)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=bound, atol=bound)


@with_state
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_moments_in_another_order_than_the_parameter_are_used(rng, kind, backend):
    """State that was put in place by somebody else, with other strides, is used where it is."""
    values = normal(rng.torch, (4, 3, 5), torch.float32)
    plain, odd = accepting(values.clone()), accepting(values.clone())
    optimizers = [kind.ours([p], **kind.widest, backend=backend) for p in (plain, odd)]
    moved = []
    for step in range(4):
        gradient = normal(rng.torch, (4, 3, 5), torch.float32)
        for p, opt in zip((plain, odd), optimizers, strict=True):
            p.grad = gradient.clone()
            opt.step()
        if step == 1:
            state = optimizers[1].state[odd]
            for name in kind.sizes:
                moved.append(Buffer(state[name], Layout((2, 0, 1), step=2, offset=3)))
                state[name] = moved[-1].view
    for buffer in moved:
        buffer.assert_only_inside()
    left = [everything([p], opt) for p, opt in zip((plain, odd), optimizers, strict=True)]
    assert_same_state(*left)
    assert all(
        optimizers[1].state[odd][n] is b.view for n, b in zip(kind.sizes, moved, strict=True)
    )
