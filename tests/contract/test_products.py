"""bias_correction="product": the products of betas travel with the state, or are computed again."""

import copy

import pytest
import torch
from lib.contract import (
    assert_same_run,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    tensors_of,
    twin,
    warmup,
)

import lrfused
from lrfused import schedules

KEYS = ("lrfused_beta1_product", "lrfused_beta2_product", "lrfused_count")


def build(params, backend="auto", constant=False):
    """Scheduled betas, so that every step's product is another."""
    beta2 = 0.95 if constant else schedules.linear(0.9, 0.999, 20)
    betas = (0.9 if constant else schedules.linear(0.7, 0.9, 9), beta2)
    return lrfused.AdamW(
        params, lr=warmup(), betas=betas, bias_correction="product", backend=backend
    )


def train_late(rng, opt, steps=6, late=3):
    """The last parameter has no gradient in the first steps."""
    for step in range(steps):
        give_gradients(rng, opt)
        if step < late:
            parameters_of(opt)[-1].grad = None
        opt.step()


def restored(opt, saved, **options):
    """Another optimizer with what was saved."""
    other = build(twin(parameters_of(opt)), **options)
    other.load_state_dict(saved)
    return other


def products_of(opt):
    """As they stand in the engine."""
    return opt._engine.bookkeeping.state(opt.param_groups).tensors.carried.clone()


def test_late_parameters_resume_bit_equal(rng, backend):
    """Products and counts of parameters that came late travel in their state, as tensors of no
    dimension in float64 and int64."""
    opt = build(make_parameters(rng), backend)
    train_late(rng, opt)
    saved = copy.deepcopy(opt.state_dict())
    for state in saved["state"].values():
        assert [state[key].dtype for key in KEYS] == [torch.float64, torch.float64, torch.int64]
        assert all(state[key].shape == () for key in KEYS)
    other = restored(opt, saved, backend=backend)
    assert torch.equal(products_of(other), products_of(opt))
    run(rng, 4, opt, other)
    assert_same_run(opt, other)
    assert torch.equal(products_of(other), products_of(opt))


def test_a_used_optimizer_takes_them_over(rng, backend):
    """Loading into an optimizer that has products of its own, at the same count."""
    opt, used = build(make_parameters(rng), backend), build(make_parameters(rng), backend)
    train_late(rng, opt)
    train_late(rng, used, late=0)
    used.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert torch.equal(products_of(used), products_of(opt))


def dropped(saved, names=KEYS):
    """The checkpoint without them."""
    for state in saved["state"].values():
        for name in names:
            state.pop(name, None)
    return saved


@pytest.mark.parametrize("names", [KEYS, KEYS[:1], KEYS[2:]])
def test_lost_products_are_computed_again(rng, names):
    """Where a parameter was updated at every step its products are those of all steps so far: the
    very bits, without a warning."""
    opt = build(make_parameters(rng))
    run(rng, 7, opt)
    other = restored(opt, dropped(copy.deepcopy(opt.state_dict()), names))
    assert torch.equal(products_of(other), products_of(opt))
    run(rng, 3, opt, other)
    assert_same_run(opt, other)


def test_lost_products_of_late_parameters_are_estimated_with_a_warning(rng):
    """Nobody knows which betas a late parameter met: its last ones are assumed, and one warning
    says so."""
    opt = build(make_parameters(rng))
    train_late(rng, opt)
    with pytest.warns(UserWarning, match="products of betas.*group 0") as seen:
        other = restored(opt, dropped(copy.deepcopy(opt.state_dict())))
    assert len(seen) == 1 and seen[0].filename == __file__
    assert torch.equal(products_of(other), products_of(opt))  # here the assumption holds


def test_lost_products_of_constant_betas_are_certain(rng):
    """Whenever its updates were, a parameter has met the same betas."""
    opt = build(make_parameters(rng), constant=True)
    train_late(rng, opt)
    other = restored(opt, dropped(copy.deepcopy(opt.state_dict())), constant=True)
    assert torch.equal(products_of(other), products_of(opt))


def test_products_that_torch_carried_along_are_not_believed(rng):
    """torch.optim.AdamW goes on for some steps and keeps them as they were, cast to the
    parameter's dtype: they are computed again from the schedules."""
    opt = build(make_parameters(rng))
    run(rng, 3, opt)
    theirs = torch.optim.AdamW(twin(parameters_of(opt)))
    theirs.load_state_dict(opt.state_dict())
    run(rng, 4, theirs)
    uninterrupted = build(make_parameters(rng))
    run(rng, 7, uninterrupted)
    for saved in (theirs.state_dict(), copy.deepcopy(theirs.state_dict())):
        other = restored(opt, saved)
        assert torch.equal(products_of(other), products_of(uninterrupted))


def test_other_corrections_leave_the_state_to_torch(rng):
    """With bias_correction="power" the state has torch's keys alone, and loading a checkpoint that
    has products leaves none of them behind."""
    opt = build(make_parameters(rng))
    run(rng, 2, opt)
    plain = lrfused.AdamW(twin(parameters_of(opt)), lr=warmup())
    with pytest.warns(UserWarning, match="bias_correction of group 0 was 'product'"):
        plain.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert {frozenset(state) for state in plain.state.values()} == {
        frozenset(("step", "exp_avg", "exp_avg_sq"))
    }


def test_products_in_a_state_that_was_replaced_are_taken(rng, backend):
    """Somebody puts a whole state in place of ours: counts and products are those that it has."""
    opt, other = build(make_parameters(rng), backend), build(make_parameters(rng), backend)
    train_late(rng, opt)
    run(rng, 6, other)
    for param, mine in zip(parameters_of(other), parameters_of(opt), strict=True):
        param.data.copy_(mine)
        other.state[param] = {k: v.clone() for k, v in opt.state[mine].items()}
    run(rng, 2, opt, other)
    assert_same_run(opt, other)
    assert len(tensors_of(opt)) == len(tensors_of(other))
    assert torch.equal(products_of(other), products_of(opt))
