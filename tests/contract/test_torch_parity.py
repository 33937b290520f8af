"""The same results as torch.optim.AdamW, under every option that both have."""

import pytest
import torch
from lib.contract import (
    STATE_KEYS,
    assert_near,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    twin,
)
from lib.runs import shorter

import lrfused

OPTIONS = {
    "defaults": {},
    "lr": {"lr": 0.03},
    "betas": {"betas": (0.8, 0.95)},
    "no momentum": {"betas": (0.0, 0.9)},
    "eps": {"eps": 1e-3},
    "no decay": {"weight_decay": 0.0},
    "decay": {"lr": 0.01, "weight_decay": 0.3},
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True},
    "both": {"amsgrad": True, "maximize": True, "weight_decay": 0.1},
    "foreach": {"foreach": True},
    "no foreach": {"foreach": False},
    "fused": {"fused": True},
    "all positional": (0.02, (0.85, 0.99), 1e-6, 0.05, True),
}


def pair(params, options, backend, **more):
    """lrfused.AdamW and torch.optim.AdamW over equal parameters."""
    positional = options if isinstance(options, tuple) else ()
    named = {} if positional else options
    theirs = torch.optim.AdamW(twin(params), *positional, **named)
    return lrfused.AdamW(params, *positional, backend=backend, **named, **more), theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_hundred_steps_equal_torchs(rng, backend, dtype, options):
    """Every option shared with torch.optim.AdamW: equal after 100 steps (interpreted: 10), within
    1e-6 in fp32 and 1e-12 in fp64, relative to the largest element."""
    ours, theirs = pair(make_parameters(rng, dtype), options, backend)
    run(rng, shorter(backend, 100), ours, theirs)
    assert_near(ours, theirs)


def ordered(tensor):
    """16-bit floating-point numbers as integers, neighbours differing by 1."""
    bits = tensor.detach().view(torch.int16).int()
    return torch.where(bits < 0, -32768 - bits, bits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_16_bit_parameters_equal_torchs_fused_step(rng, backend, dtype, amsgrad):
    """bf16 and fp16: each step from equal state is within 1 ulp of torch's fused=True step, or
    2**-21 where numbers of size 1 cancel."""
    options = {"lr": 0.01, "weight_decay": 0.1, "amsgrad": amsgrad, "fused": True}
    ours, theirs = pair(make_parameters(rng, dtype), options, backend)
    for _ in range(shorter(backend, 100)):
        run(rng, 1, ours, theirs)
        for a, b in zip(parameters_of(ours), parameters_of(theirs), strict=True):
            mine, other = ours.state[a], theirs.state[b]
            assert float(mine["step"]) == float(other["step"])
            couples = [(a, b)] + [(mine[k], other[k]) for k in STATE_KEYS[1:] if k in other]
            for x, y in couples:
                assert x.dtype == y.dtype == dtype
                close = (ordered(x) - ordered(y)).abs() <= 1
                assert (close | ((x.double() - y.double()).abs() <= 2.0**-21)).all()
                y.detach().copy_(x.detach())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_parameters_equal_torchs(rng, backend, dtype):
    """Complex parameters are pairs of reals, as in torch."""
    ours, theirs = pair(make_parameters(rng, dtype), {"lr": 0.01, "amsgrad": True}, backend)
    run(rng, 30, ours, theirs)
    assert_near(ours, theirs)


def test_a_tensor_lr_equals_torchs(rng, backend):
    """lr as a Tensor gives torch's results, in every floating-point dtype, of shape () or (1,)."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for shape in ((), (1,)):
            lr = torch.full(shape, 0.02, dtype=dtype)
            params = make_parameters(rng)
            ours = lrfused.AdamW(params, lr=lr, backend=backend)
            theirs = torch.optim.AdamW(twin(params), lr=float(lr))
            run(rng, 5, ours, theirs)
            assert_near(ours, theirs)


def test_tensor_betas_equal_torchs(rng, backend):
    """betas as Tensors give torch's results."""
    betas = (torch.tensor(0.85), torch.tensor(0.99))
    ours, theirs = pair(make_parameters(rng), {"betas": betas}, backend)
    run(rng, 20, ours, theirs)
    assert_near(ours, theirs)


def test_groups_with_options_of_their_own_equal_torchs(rng, backend):
    """Each group has its own lr, betas, eps, decay, amsgrad and maximize, as in torch."""
    a, b, c = make_parameters(rng), make_parameters(rng), make_parameters(rng)

    def groups(a, b, c):
        return [
            {"params": a, "lr": 0.02, "betas": (0.5, 0.9), "amsgrad": True},
            {"params": b, "weight_decay": 0.0, "eps": 1e-4},
            {"params": c[0], "maximize": True},
        ]

    ours = lrfused.AdamW(groups(a, b, c), lr=0.005, backend=backend)
    theirs = torch.optim.AdamW(groups(twin(a), twin(b), twin(c)), lr=0.005)
    run(rng, shorter(backend, 50), ours, theirs)
    assert_near(ours, theirs)


def test_each_parameter_counts_its_own_steps(rng, backend):
    """Gradients may be None at some steps: each parameter's count, as in torch."""
    ours, theirs = pair(make_parameters(rng), {"lr": 0.05}, backend)
    for _ in range(25):
        give_gradients(rng, ours, theirs)
        left_out = rng.numpy.random(len(parameters_of(ours))) < 0.4
        for a, b, out in zip(parameters_of(ours), parameters_of(theirs), left_out, strict=True):
            if out:
                a.grad = b.grad = None
        ours.step()
        theirs.step()
        for a, b in zip(parameters_of(ours), parameters_of(theirs), strict=True):
            assert (a in ours.state) == (b in theirs.state)
            assert sorted(ours.state.get(a, {})) == sorted(theirs.state.get(b, {}))
    assert_near(ours, theirs)


def test_empty_parameters_step_as_in_torch(rng, backend):
    """0-dim and empty parameters, first, in the middle and last."""
    shapes = ((0,), (3,), (2, 0, 3), (), (0, 4))
    ours, theirs = pair(make_parameters(rng, shapes=shapes), {}, backend)
    run(rng, 10, ours, theirs)
    assert_near(ours, theirs)


def test_layouts_of_parameters_and_gradients_do_not_matter(rng, backend):
    """Non-contiguous, channels-last, expanded and transposed tensors give torch's results."""

    def parameters(values):
        whole, image, columns = values
        return [
            torch.nn.Parameter(whole.t()),
            torch.nn.Parameter(image.contiguous(memory_format=torch.channels_last)),
            torch.nn.Parameter(columns.clone()[:, ::2]),
        ]

    values = [torch.randn(s, generator=rng.torch) for s in ((5, 3), (2, 3, 5, 4), (3, 8))]
    ours = lrfused.AdamW(parameters([v.clone() for v in values]), backend=backend)
    theirs = torch.optim.AdamW(parameters([v.clone() for v in values]))
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


def test_arguments_have_torchs_names_order_and_defaults():
    """Argument names, order and defaults are torch's; lrfused's own are keyword-only after them."""
    import inspect

    def arguments(cls):
        return {
            name: (p.default, p.kind)
            for name, p in inspect.signature(cls.__init__).parameters.items()
        }

    ours, theirs = arguments(lrfused.AdamW), arguments(torch.optim.AdamW)
    assert list(ours.items())[: len(theirs)] == list(theirs.items())
    own = list(ours.values())[len(theirs) :]
    assert own and all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind in own)
