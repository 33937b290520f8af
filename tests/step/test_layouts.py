"""Memory: strides, views, misalignment, complex numbers; what cannot work is refused."""

import pytest
import torch
from lib.layouts import LAYOUTS
from lib.runs import (
    Problem,
    advance,
    alternating,
    assert_as_reference,
    assert_same_bits,
    assert_within,
    contents,
    give_gradient,
    numpy_of,
    parameters,
    random_problem,
    run,
    set_gradients,
    shorter,
    start,
)

SHAPE = (6, 4, 5, 3)


OPTIONS = {"max_grad_norm": 1.0, "clip_value": 0.5, "agc": 0.2}


@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("of_parameter", LAYOUTS)
def test_any_layout_of_parameter_and_gradient(rng, kernels, rule, of_parameter, of_gradient):
    """The backends agree, and clip each output unit, whatever lies next to what in memory."""
    problem = random_problem(rng, [SHAPE, SHAPE, (5,)], 3)
    values = [LAYOUTS[of_parameter](x) for x in problem.values[:2]] + problem.values[2:]
    assert values[0].stride() == parameters(values)[0].stride()
    laid_out = Problem(values, problem.gradients).map_gradients(
        lambda g: LAYOUTS[of_gradient](g) if g.dim() == 4 else g
    )
    options = {**OPTIONS, **rule.largest, "write_grads": True}
    got = assert_as_reference(laid_out, kernels, **options)
    plain = run(problem, "reference", **options)
    for p, q in zip(got.params, plain.params, strict=True):
        # Another order in memory is another order of additions in the norm (for a sign, all of it).
        if rule.name != "lion":
            assert_within(numpy_of(p), numpy_of(q), 1e-5, 1 + numpy_of(q.abs()))
        if p.grad is not None:
            assert_within(numpy_of(p.grad), numpy_of(q.grad), 1e-5, 1e-3 + numpy_of(q.grad.abs()))


@pytest.mark.parametrize("of_gradient", ["every other", "channels last", "transposed"])
def test_without_a_norm_the_layout_of_a_gradient_changes_no_bit(rng, backend, rule, of_gradient):
    problem = random_problem(rng, [SHAPE], 5)
    got = run(problem.map_gradients(LAYOUTS[of_gradient]), backend)
    assert_same_bits(got.params[0], run(problem, backend).params[0])


def test_an_expanded_gradient_counts_by_its_values(rng, backend, rule):
    """What sum().backward() gives: one number seen everywhere."""
    problem = random_problem(rng, [SHAPE, (65,)], 1)
    got, want = (start(problem.values, backend, max_grad_norm=1.0) for _ in range(2))
    for made, change in ((got, lambda g: g), (want, torch.Tensor.contiguous)):
        for p in made.params:
            p.grad = change(torch.full((1,), 0.3).expand(p.shape))
        made.opt.step()
    for p, q in zip(got.params, want.params, strict=True):
        assert_same_bits(p, q)
        assert_same_bits(p.grad, q.grad)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_caller_writes_between_two_steps_counts(rng, backend, rule, layout):
    """Into parameters and moments, also where the step works on a copy of them."""
    problem = random_problem(rng, [SHAPE], 3)

    def interrupted(values):
        made = start(values, backend, **rule.largest)
        for gradients in problem.gradients:
            advance(made, gradients)
            with torch.no_grad():
                for tensor in (made.params[0], *made.opt.state[made.params[0]].values()):
                    tensor.mul_(2)
        return made.params[0]

    values = [LAYOUTS[layout](value) for value in problem.values]
    assert_same_bits(interrupted(values), interrupted(problem.values))


def test_memory_outside_a_view_is_not_touched(rng, backend):
    problem = random_problem(rng, [SHAPE], 3)
    base = torch.full([2 * n + 3 for n in SHAPE], 7.0)
    every_other = tuple(slice(0, 2 * n, 2) for n in SHAPE)
    base[every_other] = problem.values[0]
    p = torch.nn.Parameter(base[every_other])
    made = start([torch.zeros(1)], backend)
    made.opt.add_param_group({"params": [p]})
    for gradients in problem.gradients:
        set_gradients([p], gradients)
        made.opt.step()
    assert not torch.equal(p, problem.values[0])
    base[every_other] = 7.0
    assert torch.all(base == 7.0)


def test_memory_at_an_odd_address_is_stepped(rng, backend, rule):
    problem = random_problem(rng, [(700,)], 3, none=0.0)
    odd = torch.frombuffer(bytearray(4 * 700 + 1), dtype=torch.float32, offset=1)
    odd.copy_(problem.values[0])
    made = start([torch.zeros(0)], backend, max_grad_norm=1.0)
    p = torch.nn.Parameter(odd)
    made.opt.add_param_group({"params": [p]})
    for gradients in problem.gradients:
        p.grad = torch.frombuffer(bytearray(4 * 700 + 1), dtype=torch.float32, offset=1)
        p.grad.copy_(gradients[0])
        made.opt.step()
    assert_same_bits(p, run(problem, backend, max_grad_norm=1.0).params[0])


# Complex numbers are pairs of real ones.


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_numbers_are_pairs_of_reals(rng, kernels, rule, dtype):
    def random(shape):
        return torch.randn(shape, generator=rng.torch, dtype=dtype)

    shapes = [(5, 13), (), (0,), (65,), (3, 2)]
    gradients = [[random(shape) for shape in shapes] for _ in range(shorter(kernels, 10))]
    problem = Problem([random(shape) for shape in shapes], gradients)
    assert_as_reference(problem, kernels, write_grads=True, **OPTIONS, **rule.largest)
    if rule.torchs is None:
        return
    options = {**rule.base, "weight_decay": 0.2}
    plain, params = run(problem, kernels, **options), parameters(problem.values)
    opt = rule.torchs(params, foreach=False, **options)
    for step in gradients:
        set_gradients(params, step)
        opt.step()
    bound = 1e-5 if dtype == torch.complex64 else 1e-13
    for p, q in zip(plain.params, params, strict=True):
        got, true = (numpy_of(torch.view_as_real(x.detach())) for x in (p, q))
        assert_within(got, true, bound, 1 + abs(true))


LAZY = {
    "conjugate": lambda x: x.conj(),
    "negative": lambda x: x.conj().imag,
    "conjugate and every other": lambda x: x[::2].conj(),
}


@pytest.mark.parametrize("where", ["parameter", "gradient"])
@pytest.mark.parametrize("bit", LAZY)
def test_lazy_conjugates_and_negatives_count_by_their_values(rng, backend, rule, bit, where):
    x, y = (torch.randn(8, generator=rng.torch, dtype=torch.complex64) for _ in range(2))
    value, gradient = (LAZY[bit](z).resolve_conj().resolve_neg().clone() for z in (x, y))
    want = start([value], backend)
    advance(want, [gradient])
    lazy = torch.nn.Parameter(LAZY[bit](x) if where == "parameter" else value)
    made = start([torch.zeros(0)], backend)
    made.opt.add_param_group({"params": [lazy]})
    lazy.grad = LAZY[bit](y) if where == "gradient" else gradient
    made.opt.step()
    resolved = lazy.detach().resolve_conj().resolve_neg()
    assert_same_bits(resolved, want.params[0])


# What is refused


def test_elements_that_share_memory_are_refused(backend):
    p = torch.nn.Parameter(torch.zeros(1).expand(3, 4))
    made = start([torch.zeros(1)], backend)
    made.opt.add_param_group({"params": [p]})
    p.grad = torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"params: elements of a parameter of shape \(3, 4\)"):
        made.opt.step()


@pytest.mark.parametrize("overlap", [lambda b: b[:6], lambda b: b[4:], lambda b: b[5:6]])
def test_parameters_that_share_memory_are_refused(rng, backend, overlap):
    base = torch.randn(10, generator=rng.torch)
    before = base.clone()
    ps = [torch.nn.Parameter(base[2:8]), torch.nn.Parameter(overlap(base))]
    made = start([torch.zeros(1)], backend)
    for group in alternating(ps, {}):
        made.opt.add_param_group(group)
    for p in ps:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="params: two parameters share memory"):
        made.opt.step()
    assert_same_bits(base, before)


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (torch.ones(3).to_sparse(), RuntimeError, "sparse"),
        (torch.ones(3, dtype=torch.int32), TypeError, "int32"),
        (torch.ones(3, dtype=torch.complex64), TypeError, "complex64"),
    ],
)
def test_gradients_that_no_kernel_can_read_are_refused(rng, backend, gradient, error, message):
    made = start([torch.zeros(3), torch.zeros(3)], backend)
    advance(made, [torch.ones(3), torch.ones(3)])
    before = contents(made)
    give_gradient(made.params[1], gradient)
    with pytest.raises(error, match=message):
        made.opt.step()
    after = contents(made)
    assert_same_run_values(after, before)


def assert_same_run_values(after, before):
    """Gradients apart."""
    for name in before:
        if not name.startswith("grad"):
            assert_same_bits(after[name], before[name], name)
