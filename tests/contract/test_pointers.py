"""Which memory a step may touch."""

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_bits,
    assert_same_run,
    assert_unchanged,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    snapshot,
    twin,
)
from torch.nn import Parameter


class Tagged(torch.Tensor):
    """A subclass of Tensor."""


def refused(
    rng, kind, backend, spoil, match, error=(TypeError, ValueError, RuntimeError), **options
):
    """After ``spoil`` a step raises and changes nothing; ``spoil`` returns what repairs it."""
    opt = kind.ours(make_parameters(rng), backend=backend, **options)
    run(rng, 2, opt)
    give_gradients(rng, opt)
    before = snapshot(opt)
    repair = spoil(opt, parameters_of(opt))
    with pytest.raises(error, match=match):
        opt.step()
    repair()
    assert_unchanged(opt, before)
    give_gradients(rng, opt)
    opt.step()
    assert opt.metrics()["steps"] == 3


def gradient(make):
    """A spoiler that replaces the gradient of the second parameter, of shape (13,)."""

    def spoil(opt, params):
        good = params[1].grad
        params[1].grad = None
        # The setter of .grad refuses some of these; .data of a gradient lets them in.
        params[1].grad = torch.zeros(13)
        bad = make()
        try:
            params[1].grad = bad
        except (RuntimeError, TypeError):
            params[1].grad.data = bad
        return lambda: setattr(params[1], "grad", good)

    return spoil


def freed():
    tensor = torch.zeros(13)
    tensor.untyped_storage().resize_(0)
    return tensor


def freed_view():
    """torch still says an address of it: its offset."""
    tensor = torch.zeros(20)
    view = tensor[7:]
    tensor.untyped_storage().resize_(0)
    assert view.data_ptr() != 0
    return view


GRADIENTS = {
    "sparse": (lambda: torch.zeros(13).to_sparse(), "sparse"),
    "subclass": (lambda: torch.zeros(13).as_subclass(Tagged), "Tagged"),
    "freed": (freed, "memory|storage"),
    "a view of freed": (freed_view, "memory"),
}


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("make,match", GRADIENTS.values(), ids=GRADIENTS)
def test_unusable_gradients_are_refused(rng, kind, backend, make, match):
    """Sparse gradients, subclasses and freed storage: an error before anything changes."""
    refused(rng, kind, backend, gradient(make), match)


@pytest.mark.usefixtures("reader")
def test_a_gradient_of_another_shape_is_refused(rng, kind, backend):
    """p.data of another size than p.grad (both larger and smaller): an error, no wild read."""
    for size in (5, 1000):

        def spoil(opt, params, size=size):
            good = params[1].data
            params[1].data = torch.zeros(size)
            return lambda: setattr(params[1], "data", good)

        refused(rng, kind, backend, spoil, "shape")


def test_meta_parameters_are_refused(rng, kind, backend):
    """A parameter and gradient on the meta device: an error that says so."""
    params = [*make_parameters(rng), Parameter(torch.zeros(3, device="meta"))]
    opt = kind.ours(params, backend=backend)
    kept = twin(params[:-1])
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="meta"):
        opt.step()
    assert_same_bits(params[:-1], kept)
    assert not opt.state and opt.metrics()["steps"] == 0


def test_subclasses_of_parameter_are_refused(rng, kind, backend):
    """A parameter that is a subclass raises and names the class."""
    bad = Parameter(torch.zeros(3).as_subclass(Tagged))
    opt = kind.ours([*make_parameters(rng), bad], backend=backend)
    give_gradients(rng, opt)
    with pytest.raises(TypeError, match="Tagged"):
        opt.step()
    assert not opt.state


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_unsupported_dtypes_are_refused(rng, kind, backend, dtype):
    """A dtype that no kernel has: TypeError that names it."""
    params = [*make_parameters(rng), Parameter(torch.zeros(3).to(dtype))]
    opt = kind.ours(params, backend=backend)
    for p in params:
        p.grad = torch.zeros(p.shape).to(p.dtype)
    with pytest.raises(TypeError, match="float8"):
        opt.step()
    assert not opt.state


OVERLAPPING = {
    "expanded": lambda: torch.zeros(1, 4).expand(3, 4),
    "stride 0 in the middle": lambda: torch.zeros(2, 1, 4).expand(2, 3, 4),
    "sliding windows": lambda: torch.zeros(8).as_strided((4, 3), (1, 1)),
    "wide windows": lambda: torch.zeros(30).as_strided((4, 6), (4, 1)),
}


@pytest.mark.parametrize("make", OVERLAPPING.values(), ids=OVERLAPPING)
def test_overlapping_strides_are_refused(rng, kind, backend, make):
    """A parameter of which two elements are one place in memory: ValueError, nothing moved."""
    bad = Parameter(make())
    good = make_parameters(rng)
    kept = twin(good)
    opt = kind.ours([*good, bad], backend=backend)
    give_gradients(rng, opt)
    with pytest.raises(ValueError, match="share memory"):
        opt.step()
    assert_same_bits(good, kept)
    assert not opt.state


SHARED = {
    "the same memory": lambda base: (base, base[:]),
    "a part": lambda base: (base, base[2:3]),
    "overlapping columns": lambda base: (base[:, :3], base[:, 2:]),
    "a column of it": lambda base: (base, base[:, 1]),
    "a transposed view": lambda base: (base, base.t()),
    "another dtype": lambda base: (base, base.view(torch.int16).view(torch.bfloat16)[1]),
}


@pytest.mark.parametrize("views", SHARED.values(), ids=SHARED)
def test_parameters_that_share_memory_are_refused(rng, kind, backend, views):
    """Two parameters with a place in common: ValueError, nothing moved."""
    base = torch.randn(5, 6, generator=rng.torch)
    kept = base.clone()
    opt = kind.ours([Parameter(v) for v in views(base)], backend=backend)
    give_gradients(rng, opt)
    with pytest.raises(ValueError, match="share memory"):
        opt.step()
    assert torch.equal(base, kept) and not opt.state


DISJOINT = {
    "rows": lambda base: (base[:2], base[2:]),
    "columns": lambda base: (base[:, :2], base[:, 2:]),
    "every other element": lambda base: (base.view(-1)[::2], base.view(-1)[1::2]),
    "interleaved columns": lambda base: (base[:, ::2], base[:, 1::2]),
}


@pytest.mark.parametrize("views", DISJOINT.values(), ids=DISJOINT)
def test_disjoint_views_of_one_tensor_step(rng, kind, backend, views):
    """Parameters that are views of one tensor without a common place step as in torch."""
    base = torch.randn(5, 6, generator=rng.torch)
    other = base.clone()
    ours = kind.ours([Parameter(v) for v in views(base)], backend=backend)
    theirs = kind.theirs([Parameter(v) for v in views(other)])
    run(rng, 5, ours, theirs)
    assert_near(ours, theirs)
    torch.testing.assert_close(base, other, rtol=1e-5, atol=1e-6)


FROZEN = {
    "int8": lambda: torch.zeros(3, dtype=torch.int8),
    "float8": lambda: torch.zeros(3).to(torch.float8_e4m3fn),
    "meta": lambda: torch.zeros(3, device="meta"),
    "sparse": lambda: torch.zeros(3).to_sparse(),
    "subclass": lambda: torch.zeros(3).as_subclass(Tagged),
    "freed": freed,
    "a view of freed": freed_view,
    "expanded": lambda: torch.zeros(1).expand(3),
}


@pytest.mark.parametrize("make", FROZEN.values(), ids=FROZEN)
def test_parameters_without_gradients_may_be_anything(rng, kind, backend, make):
    """Frozen parameters of any kind beside the others are left alone, as in torch."""
    params = make_parameters(rng)
    plain = kind.ours(twin(params), backend=backend)
    frozen = Parameter(make(), requires_grad=False)
    opt = kind.ours([params[0], frozen, *params[1:]], backend=backend)
    for _ in range(3):
        give_gradients(rng, plain)
        for p, q in zip(params, parameters_of(plain), strict=True):
            p.grad = q.grad.clone()
        opt.step()
        plain.step()
    assert_same_bits(params, parameters_of(plain))
    assert frozen not in opt.state


@pytest.mark.usefixtures("reader")
def test_lazy_conjugates_and_signs_are_resolved(rng, kind, backend):
    """Gradients with the conj or neg bit set count by their values."""
    params = make_parameters(rng, torch.complex64, ((4, 3), (5,)))
    plain = kind.ours(twin(params), backend=backend)
    opt = kind.ours(params, backend=backend)
    for _ in range(3):
        give_gradients(rng, opt, plain)
        for p, q in zip(params, parameters_of(plain), strict=True):
            q.grad = p.grad.conj().resolve_conj() if p.dim() == 2 else p.grad
            p.grad = p.grad.conj() if p.dim() == 2 else p.grad
        assert params[0].grad.is_conj()
        opt.step()
        plain.step()
    assert_same_run(opt, plain)
