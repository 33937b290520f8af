"""The largest eigenvalue of a Hessian against dense Hessians in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from lrfused.analysis import largest_eigenvalue


def with_spectrum(rng, values):
    """A random symmetric matrix with these eigenvalues."""
    n = len(values)
    q, _ = np.linalg.qr(rng.numpy.standard_normal((n, n)))
    matrix = torch.from_numpy(q @ np.diag(values) @ q.T)
    return 0.5 * (matrix + matrix.T)


def quadratic(matrix, x):
    return 0.5 * x @ matrix @ x


def random_point(rng, n, dtype=torch.float64):
    return torch.randn(n, generator=rng.torch, dtype=dtype).requires_grad_()


SPECTRA = {
    "one number": lambda r: [r.normal()],
    "positive": lambda r: np.linspace(0.1, 9.0, 37) * r.uniform(0.5, 2.0),
    "negative": lambda r: -np.linspace(0.1, 9.0, 37) * r.uniform(0.5, 2.0),
    "both, the largest magnitude negative": lambda r: [*r.uniform(-3, 3, 30), -50.0, 7.0],
    "one direction": lambda r: [5.0] + [0.0] * 60,
    "a plane and the rest": lambda r: [5.0, 5.0] + [-1.0] * 41,
    "a multiple of the identity": lambda r: [-2.5] * 23,
    "zero": lambda r: [0.0] * 23,
    "close together at the end": lambda r: [*np.linspace(0, 1, 150), 1.02, 1.03],
    "many magnitudes": lambda r: np.logspace(-9, 3, 61),
}


@pytest.mark.parametrize("basis_size", [2, 5, 20, 1000])
@pytest.mark.parametrize("name", list(SPECTRA))
def test_known_spectra(rng, name, basis_size):
    values = np.asarray(SPECTRA[name](rng.numpy))
    matrix = with_spectrum(rng, values)
    x = random_point(rng, len(values))
    found = largest_eigenvalue(
        lambda: quadratic(matrix, x), x, tolerance=1e-7, basis_size=basis_size, max_iterations=5000
    )
    scale = np.abs(values).max()
    assert found.converged
    assert found.value == pytest.approx(values.max(), abs=1e-7 * scale + 1e-14)
    assert_eigenpair(found, matrix, scale)


def assert_eigenpair(found, matrix, scale, tolerance=1e-7):
    """The residual is what it says, of a vector of norm 1."""
    v = torch.cat([piece.reshape(-1) for piece in found.vector])
    residual = torch.linalg.vector_norm(matrix @ v - found.value * v).item()
    assert torch.linalg.vector_norm(v).item() == pytest.approx(1.0, abs=1e-12)
    assert found.residual == pytest.approx(residual, abs=1e-12 * scale)
    assert residual <= tolerance * scale + 1e-14


def dense(model, loss):
    """The float64 Hessian over all parameters of a model, by torch.func."""
    params = {name: p.detach().double() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in params.values()]

    def at(flat):
        pieces = flat.split(sizes)
        shaped = {k: v.view_as(p) for v, (k, p) in zip(pieces, params.items(), strict=True)}
        return loss(lambda x: torch.func.functional_call(model, shaped, (x,)))

    return torch.func.jacrev(torch.func.grad(at))(
        torch.cat([p.reshape(-1) for p in params.values()])
    )


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_a_model(rng, dtype, close, activation):
    torch.manual_seed(int(rng.numpy.integers(2**31)))
    model = nn.Sequential(nn.Linear(5, 7), activation(), nn.Linear(7, 3)).to(dtype)
    x = torch.randn(11, 5, generator=rng.torch)
    y = torch.randint(3, (11,), generator=rng.torch)

    def loss(run, dtype):
        return nn.functional.cross_entropy(run(x.to(dtype)), y)

    matrix = dense(model, lambda run: loss(run, torch.float64))
    values = np.linalg.eigvalsh(matrix.numpy())
    found = largest_eigenvalue(
        lambda: loss(model, dtype), model.parameters(), tolerance=close, max_iterations=500
    )
    assert found.converged and 1 <= found.iterations <= 500
    assert found.value == pytest.approx(values[-1], rel=close)
    assert [v.shape for v in found.vector] == [p.shape for p in model.parameters()]
    assert {v.dtype for v in found.vector} == {torch.float64}
    v = torch.cat([piece.reshape(-1) for piece in found.vector])
    assert torch.linalg.vector_norm(matrix @ v - found.value * v) <= 3 * close * values[-1]


def test_parameters_of_every_form(rng):
    """0-dimensional, empty, non-contiguous, of several dtypes, without a part in the loss."""
    a, b, c = (float(n) for n in rng.numpy.integers(1, 9, 3))
    point = torch.tensor(1.5, requires_grad=True)
    empty = torch.empty(3, 0, requires_grad=True)
    wide = torch.randn(4, 3, generator=rng.torch, dtype=torch.float64).T.requires_grad_()
    short = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    unused = torch.ones(5, requires_grad=True)
    linear = torch.ones(2, requires_grad=True)

    def loss():
        square = a * point.double() ** 2 + b * (wide[1, 2] + wide[0, 1]) ** 2
        return square + c * short[0].double() * short[1].double() + linear.sum() + empty.sum()

    params = [empty, point, wide, unused, short, linear]
    found = largest_eigenvalue(loss, params)
    assert found.value == pytest.approx(max(2 * a, 4 * b, c), rel=0.01)  # bfloat16 has 8 bits
    assert [v.shape for v in found.vector] == [p.shape for p in params]
    assert all(found.vector[i].abs().max() < 0.02 for i in (3, 5))


def test_where_nothing_curves():
    """A linear loss and parameters that it does not depend on: the Hessian is 0."""
    w, other = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    for params in ([w], [other], [w, other]):
        found = largest_eigenvalue(lambda: w.sum(), params)
        assert found[:4] == (0.0, 0.0, 2, True)


def test_sixteen_bit_weights(rng):
    values = rng.numpy.uniform(-1.0, 4.0, 33)
    matrix = with_spectrum(rng, values)
    for dtype in (torch.bfloat16, torch.float16):
        x = random_point(rng, 33, dtype)
        found = largest_eigenvalue(lambda x=x: quadratic(matrix, x.double()), x)
        assert found.value == pytest.approx(values.max(), rel=0.02)
        assert found.residual <= 0.02 * values.max()


def test_a_loss_with_its_graph_can_still_go_backward(rng):
    x = random_point(rng, 9)
    matrix = with_spectrum(rng, rng.numpy.uniform(0, 1, 9))
    loss = quadratic(matrix, x)
    of_graph = largest_eigenvalue(loss, x)
    assert of_graph[:3] == largest_eigenvalue(lambda: quadratic(matrix, x), [x])[:3]
    loss.backward()
    torch.testing.assert_close(x.grad, matrix @ x.detach())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_off(rng, mode):
    matrix = with_spectrum(rng, [1.0, 2.0, 3.0])
    x = random_point(rng, 3)
    with mode():
        found = largest_eigenvalue(lambda: quadratic(matrix, x), x)
    assert found.value == pytest.approx(3.0)
    assert not found.vector[0].is_inference() and not found.vector[0].requires_grad


def test_everything_is_left_as_it_was(rng):
    """Weights, gradients and global random numbers; the loss is evaluated once."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    x = torch.randn(8, 4, generator=rng.torch)
    model(x).sum().backward()
    params = list(model.parameters())
    before = [p.detach().clone() for p in params], [p.grad.clone() for p in params]
    grads, counted = [p.grad for p in params], model[1].num_batches_tracked.item()
    state = torch.get_rng_state()
    largest_eigenvalue(lambda: model(x).square().mean(), params)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is g for p, g in zip(params, grads, strict=True))
    after = [p.detach() for p in params], [p.grad for p in params]
    for old, new in zip(before, after, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    assert model[1].num_batches_tracked.item() == counted + 1


def test_the_generator_decides_the_start(rng):
    values = rng.numpy.uniform(0, 1, 200)
    matrix = with_spectrum(rng, values)
    x = random_point(rng, 200)

    def value(seed, **options):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return largest_eigenvalue(quadratic(matrix, x), x, generator=generator, **options)[:2]

    assert value(None) == value(None) == value(0) and value(3) == value(3)
    assert value(3, max_iterations=2) != value(4, max_iterations=2)


def test_too_few_iterations_are_said(rng):
    matrix = with_spectrum(rng, np.linspace(0, 1, 100))
    x = random_point(rng, 100)
    found = largest_eigenvalue(quadratic(matrix, x), x, max_iterations=3)
    assert not found.converged and found.iterations == 3
    assert_eigenpair(found, matrix, scale=1.0, tolerance=1.0)
    assert found.value < 1.0


def test_a_tolerance_below_rounding_ends_with_the_space(rng):
    """After one product for each dimension there is no new direction; one more is the residual."""
    values = rng.numpy.uniform(-1, 1, 7)
    matrix = with_spectrum(rng, values)
    x = random_point(rng, 7)
    found = largest_eigenvalue(quadratic(matrix, x), x, tolerance=1e-300)
    assert found.iterations <= 9 and found.residual < 1e-14
    assert found.value == pytest.approx(values.max(), rel=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        [100.0, 30.0, 10.0, *np.linspace(0, 1, 200), -0.05],
        [1e4, 3e3, 1e3, *np.linspace(0, 5, 200), -0.5],
        [1000.0] * 3 + [0.5] * 40 + [-1e-3],
    ],
)
def test_a_small_end_of_a_long_spectrum(rng, values):
    """The smallest by the negative loss: converged is relative to it, so the sign is right.

    With a small tolerance: a start that has hardly any of it would be taken for one without.
    """
    matrix = with_spectrum(rng, values)
    x = random_point(rng, len(values))
    found = largest_eigenvalue(-quadratic(matrix, x), x, max_iterations=1000, tolerance=1e-7)
    assert found.converged and -found.value == pytest.approx(values[-1], rel=1e-3)
    assert found.residual <= 1e-7 * found.value


def test_a_largest_eigenvalue_of_zero(rng):
    """Nothing is relative to it: rounding decides, by the largest magnitude."""
    values = np.append(-rng.numpy.uniform(1, 9, 30), 0.0)
    matrix = with_spectrum(rng, values)
    x = random_point(rng, 31)
    found = largest_eigenvalue(quadratic(matrix, x), x, max_iterations=1000)
    assert abs(found.value) < 1e-13
    assert found.residual < 1e-13


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e-150, 1e150, 1e170, 1e300])
def test_extreme_scales(rng, scale):
    """Squares of the products neither vanish nor overflow."""
    values = np.linspace(1.0, 5.0, 40)
    matrix = with_spectrum(rng, values) * scale
    x = (random_point(rng, 40).detach() * 1e-5).requires_grad_()
    short = largest_eigenvalue(quadratic(matrix, x), x, max_iterations=3)
    assert not short.converged and 1e-3 < short.residual / scale < 5.0
    found = largest_eigenvalue(quadratic(matrix, x), x, tolerance=1e-6)
    assert found.converged and found.value / scale == pytest.approx(5.0, rel=1e-6)


@pytest.mark.parametrize(("basis_size", "most"), [(3, 600), (4, 300), (6, 200)])
def test_restarts_keep_what_was_found(rng, basis_size, most):
    """Half of the basis: a restart from one vector alone needs several times the products."""
    values = [*np.linspace(0, 1, 398), 1.02, 1.021]
    matrix = with_spectrum(rng, values)
    x = random_point(rng, 400)
    found = largest_eigenvalue(
        quadratic(matrix, x), x, tolerance=1e-6, basis_size=basis_size, max_iterations=5000
    )
    assert found.converged and found.iterations <= most


def test_the_smallest_is_that_of_the_negative_loss(rng):
    values = rng.numpy.uniform(-5, 2, 31)
    matrix = with_spectrum(rng, values)
    x = random_point(rng, 31)
    found = largest_eigenvalue(-quadratic(matrix, x), x, tolerance=1e-9)
    assert -found.value == pytest.approx(values.min())


def test_sparse_gradients(rng):
    """Of an embedding: its Hessian is diagonal, the counts of the rows."""
    table = nn.Embedding(6, 2, sparse=True)
    rows = torch.tensor([0, 3, 3, 3, 5])
    found = largest_eigenvalue(lambda: table(rows).square().sum(), table.parameters())
    assert found.value == pytest.approx(6.0, rel=1e-5)
