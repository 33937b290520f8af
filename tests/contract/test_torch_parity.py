"""The same results as torch.optim.AdamW, under every option that both have."""

import pytest
import torch
from lib.contract import (
    assert_near,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    shown_state,
    twin,
)
from lib.optimizers import KINDS, with_betas
from lib.runs import shorter

OPTIONS = {
    "defaults": {},
    "lr": {"lr": 0.03},
    "no decay": {"weight_decay": 0.0},
    "decay": {"lr": 0.01, "weight_decay": 0.3},
    "maximize": {"maximize": True},
}
OF_TORCH = {
    "foreach": {"foreach": True},
    "no foreach": {"foreach": False},
    "fused": {"fused": True},
}
OF_KIND = {
    "adamw": {
        **OF_TORCH,
        "betas": {"betas": (0.8, 0.95)},
        "no momentum": {"betas": (0.0, 0.9)},
        "eps": {"eps": 1e-3},
        "amsgrad": {"amsgrad": True},
        "both": {"amsgrad": True, "maximize": True, "weight_decay": 0.1},
        "all positional": (0.02, (0.85, 0.99), 1e-6, 0.05, True),
    },
    "sgd": {
        **OF_TORCH,
        "no dampening": {"dampening": 0.0},
        "more than 1": {"dampening": 1.5, "momentum": 0.5},
        "nesterov": {"dampening": 0.0, "nesterov": True, "maximize": True},
        "all positional": (0.02, 0.8, 0.0, 0.05, True),
    },
    "sgd without momentum": {"dampening": {"dampening": 0.5}},
    "lion": {
        "betas": {"betas": (0.8, 0.95)},
        "no momentum": {"betas": (0.0, 0.9)},
        "all positional": (0.02, (0.85, 0.99), 0.05),
    },
}


def pair(kind, params, options, backend, **more):
    """Ours and torch's over equal parameters."""
    positional = options if isinstance(options, tuple) else ()
    named = {} if positional else {**kind.options, **options}
    theirs = kind.counterpart(twin(params), *positional, **named)
    return kind.cls(params, *positional, backend=backend, **named, **more), theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(kind, options, id=f"{kind.name}-{name}")
        for kind in KINDS
        for name, options in {**OPTIONS, **OF_KIND[kind.name]}.items()
    ],
)
def test_hundred_steps_equal_torchs(rng, kind, backend, dtype, options):
    """Every option shared with torch's optimizer: equal after 100 steps (interpreted: 10), in fp32
    within 1e-6 (SGD with momentum and Lion 4e-6) of an element or, for parameters, of 1 where that
    is more; in fp64 within a millionth of it."""
    ours, theirs = pair(kind, make_parameters(rng, dtype), options, backend)
    run(rng, shorter(backend, 100), ours, theirs)
    assert_near(ours, theirs)


def ordered(tensor):
    """16-bit floating-point numbers as integers, neighbours differing by 1."""
    bits = tensor.detach().view(torch.int16).int()
    return torch.where(bits < 0, -32768 - bits, bits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        pytest.param(kind, more, id=f"{kind.name}-{'widest' if more else 'usual'}")
        for kind in KINDS
        for more in ([{}, kind.widest] if kind.widest else [{}])
    ],
)
def test_16_bit_parameters_equal_torchs_fused_step(rng, kind, backend, dtype, more):
    """bf16 and fp16: each step from equal state is within 1 ulp of torch's fused=True step, or
    2**-21 where numbers of size 1 cancel. (SGD, Lion: of the step in fp32, rounded.)"""
    options = {"lr": 0.01, "weight_decay": 0.1, **more, **kind.fused}
    ours, theirs = pair(kind, make_parameters(rng, dtype), options, backend)
    if not kind.fused:
        for param in parameters_of(theirs):
            param.data = param.data.float()
    for _ in range(shorter(backend, 100)):
        give_gradients(rng, ours)
        for a, b in zip(parameters_of(ours), parameters_of(theirs), strict=True):
            b.grad = a.grad.to(b.dtype)
        ours.step()
        theirs.step()
        for a, b in zip(parameters_of(ours), parameters_of(theirs), strict=True):
            mine, other = shown_state(ours, a), shown_state(theirs, b)
            assert mine.keys() == other.keys() and mine.pop("step", 0) == other.pop("step", 0)
            couples = [(a, b)] + [(mine[key], other[key]) for key in mine]
            for x, y in couples:
                assert x.dtype == dtype and y.dtype == (dtype if kind.fused else torch.float32)
                close = (ordered(x) - ordered(y.to(dtype))).abs() <= 1
                assert (close | ((x.double() - y.double()).abs() <= 2.0**-21)).all()
                y.detach().copy_(x.detach())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_parameters_equal_torchs(rng, kind, backend, dtype):
    """Complex parameters are pairs of reals, as in torch."""
    ours, theirs = pair(kind, make_parameters(rng, dtype), {"lr": 0.01, **kind.widest}, backend)
    run(rng, 30, ours, theirs)
    assert_near(ours, theirs)


def test_a_tensor_lr_equals_torchs(rng, kind, backend):
    """lr as a Tensor gives torch's results, in every floating-point dtype, of shape () or (1,)."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for shape in ((), (1,)):
            lr = torch.full(shape, 0.02, dtype=dtype)
            params = make_parameters(rng)
            ours = kind.ours(params, lr=lr, backend=backend)
            theirs = kind.theirs(twin(params), lr=float(lr))
            run(rng, 5, ours, theirs)
            assert_near(ours, theirs)


@with_betas
def test_tensor_betas_equal_torchs(rng, kind, backend):
    """betas as Tensors give torch's results."""
    betas = (torch.tensor(0.85), torch.tensor(0.99))
    ours, theirs = pair(kind, make_parameters(rng), {"betas": betas}, backend)
    run(rng, 20, ours, theirs)
    assert_near(ours, theirs)


def test_groups_with_options_of_their_own_equal_torchs(rng, kind, backend):
    """Each group has its own lr, betas, eps, decay, amsgrad and maximize, as in torch."""
    a, b, c = make_parameters(rng), make_parameters(rng), make_parameters(rng)

    def groups(a, b, c):
        return [
            {"params": a, "lr": 0.02, **kind.numbers, **kind.widest},
            {"params": b, "weight_decay": 0.0},
            {"params": c[0], "maximize": True},
        ]

    ours = kind.ours(groups(a, b, c), lr=0.005, backend=backend)
    theirs = kind.theirs(groups(twin(a), twin(b), twin(c)), lr=0.005)
    run(rng, shorter(backend, 50), ours, theirs)
    assert_near(ours, theirs)


def test_each_parameter_counts_its_own_steps(rng, kind, backend):
    """Gradients may be None at some steps: each parameter's count, as in torch."""
    ours, theirs = pair(kind, make_parameters(rng), {"lr": 0.05}, backend)
    for _ in range(25):
        give_gradients(rng, ours, theirs)
        left_out = rng.numpy.random(len(parameters_of(ours))) < 0.4
        for a, b, out in zip(parameters_of(ours), parameters_of(theirs), left_out, strict=True):
            if out:
                a.grad = b.grad = None
        ours.step()
        theirs.step()
        for a, b in zip(parameters_of(ours), parameters_of(theirs), strict=True):
            assert sorted(shown_state(ours, a)) == sorted(shown_state(theirs, b))
    assert_near(ours, theirs)


def test_empty_parameters_step_as_in_torch(rng, kind, backend):
    """0-dim and empty parameters, first, in the middle and last."""
    shapes = ((0,), (3,), (2, 0, 3), (), (0, 4))
    ours, theirs = pair(kind, make_parameters(rng, shapes=shapes), {}, backend)
    run(rng, 10, ours, theirs)
    assert_near(ours, theirs)


def test_layouts_of_parameters_and_gradients_do_not_matter(rng, kind, backend):
    """Non-contiguous, channels-last, expanded and transposed tensors give torch's results."""

    def parameters(values):
        whole, image, columns = values
        return [
            torch.nn.Parameter(whole.t()),
            torch.nn.Parameter(image.contiguous(memory_format=torch.channels_last)),
            torch.nn.Parameter(columns.clone()[:, ::2]),
        ]

    values = [torch.randn(s, generator=rng.torch) for s in ((5, 3), (2, 3, 5, 4), (3, 8))]
    ours = kind.ours(parameters([v.clone() for v in values]), backend=backend)
    theirs = kind.theirs(parameters([v.clone() for v in values]))
    for _ in range(10):
        gradients = [
            torch.randn(3, 5, generator=rng.torch),
            torch.randn(1, 3, 1, 4, generator=rng.torch).expand(2, 3, 5, 4),
            torch.randn(4, 3, generator=rng.torch).t(),
        ]
        for opt in (ours, theirs):
            for param, gradient in zip(parameters_of(opt), gradients, strict=True):
                param.grad = gradient.clone(memory_format=torch.preserve_format)
            opt.step()
    assert_near(ours, theirs)


def test_arguments_have_torchs_names_order_and_defaults(kind):
    """Argument names, order and defaults are torch's; lrfused's own are keyword-only after them."""
    import inspect

    def arguments(cls):
        return {
            name: (p.default, p.kind)
            for name, p in inspect.signature(cls.__init__).parameters.items()
        }

    ours, theirs = arguments(kind.cls), arguments(kind.counterpart)
    assert list(ours.items())[: len(theirs)] == list(theirs.items())
    own = list(ours.values())[len(theirs) :]
    assert own and all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind in own)
