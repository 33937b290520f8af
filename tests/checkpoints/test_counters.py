"""Which step a loaded checkpoint stands at, and products of betas that did not travel."""

import pytest
import torch
from lib.optimizers import without_counts

from .plain import assert_same, resumed, saved, step, trained
from .scenarios import products, warmup

PRODUCTS = ("lrfused_beta1_product", "lrfused_beta2_product", "lrfused_count")


@pytest.mark.parametrize(("stored", "expected"), [(2, 5), (5, 5), (9, 9)])
def test_the_largest_count_wins_over_a_smaller_counter(rng, stored, expected):
    """The schedule's step is the stored counter, but at least the largest step of a parameter."""
    model, opt = trained(rng, 5)
    state = saved(model, opt)
    for group in state["param_groups"]:
        group["lrfused_step"].fill_(stored)
    _, other = resumed(model, state)
    assert other.metrics()["steps"] == expected
    assert other.param_groups[0]["lr"] == warmup(0.02)(expected)


@without_counts
@pytest.mark.parametrize("stored", [2, 5, 9])
def test_the_counter_leads_where_no_count_is_shown(rng, kind, stored):
    """SGD's and Lion's: the stored counter, whatever it is."""
    _, opt = trained(rng, 5, kind=kind)
    saved_state = opt.state_dict()
    for group in saved_state["param_groups"]:
        group["lrfused_step"].fill_(stored)
    _, other = trained(rng, 3, kind=kind)
    other.load_state_dict(saved_state)
    assert other.metrics()["steps"] == stored
    assert other.param_groups[0]["lr"] == warmup(0.02)(stored)


def test_without_our_keys_the_largest_count_leads(rng):
    """A checkpoint of torch's, or one that lost our keys: the largest step of a parameter."""
    model, opt = trained(rng, 5, late=2)
    state = saved(model, opt)
    for group in state["param_groups"]:
        for key in [key for key in group if key.startswith("lrfused")]:
            del group[key]
    _, other = resumed(model, state)
    assert other.metrics()["steps"] == 5 and other.metrics()["skipped_steps"] == 0
    assert [float(s["step"]) for s in other.state.values()] == [5.0, 3.0]
    step(rng, opt, other)
    assert_same(opt, other)


def without_products(state):
    for of_parameter in state["state"].values():
        for key in PRODUCTS:
            del of_parameter[key]
    return state


def test_lost_products_are_computed_again(rng):
    """Products of scheduled betas that did not travel, of parameters that were there at each step:
    the run goes on bit-equal, without a warning."""
    model, opt = trained(rng, 5, **products())
    state = without_products(saved(model, opt))
    _, other = resumed(model, state, **products())
    for _ in range(4):
        step(rng, opt, other)
        assert_same(opt, other)


def test_lost_products_of_late_parameters_are_said(rng):
    """Of a parameter that came late nobody knows which betas it met: a warning, and the others go
    on bit-equal."""
    model, opt = trained(rng, 5, late=2, **products())
    state = without_products(saved(model, opt))
    with pytest.warns(UserWarning, match="products of betas"):
        other_model, other = resumed(model, state, **products())
    assert other.metrics()["steps"] == 5
    step(rng, opt, other)
    assert torch.equal(model.weight, other_model.weight)
    assert [float(s["step"]) for s in other.state.values()] == [6.0, 4.0]


def test_a_parameter_without_an_update_has_nothing_to_lose(rng):
    """A parameter that had no gradient before the checkpoint has met no beta: no warning."""
    model, opt = trained(rng, 5, late=5, **products())
    state = opt.state_dict()
    assert all(key in s for s in state["state"].values() for key in PRODUCTS)
    other_model, other = trained(rng, 0, **products())
    other_model.load_state_dict(model.state_dict())
    other.load_state_dict(state)
    for _ in range(4):
        step(rng, opt, other)
        assert_same(opt, other)


def test_power_becomes_product(rng):
    """A checkpoint without products in an optimizer that asks for them: they are computed, the
    option that differs is said in one warning."""
    options = {key: value for key, value in products().items() if key != "bias_correction"}
    model, opt = trained(rng, 5, **options)
    state = saved(model, opt)
    with pytest.warns(UserWarning, match="bias_correction") as caught:
        _, other = resumed(model, state, **products())
    assert len(caught) == 1
    state_of = next(iter(other.state_dict()["state"].values()))
    beta1, beta2 = products()["betas"]
    expected = [1.0, 1.0]
    for t in range(5):
        expected = [expected[0] * float(beta1(t)), expected[1] * float(beta2(t))]
    found = [float(state_of[key]) for key in PRODUCTS[:2]]
    assert found == pytest.approx(expected, rel=1e-6)
