"""What does not fit is refused before anything is written."""

import dataclasses

import pytest
import torch
from lib.contract import assert_unchanged, make_parameters, run, snapshot, warmup
from lib.optimizers import CLASSES, FIRST, with_state

import lrfused

SHAPES = ((7, 5), (13,), ())


def made(rng, kind, shapes=SHAPES, dtype=torch.float32, sizes=(2, 1), **options):
    """An optimizer after two steps, of groups of these sizes."""
    params = iter(make_parameters(rng, dtype, shapes))
    groups = [{"params": [next(params) for _ in range(size)]} for size in sizes]
    opt = kind.ours(groups, **{"lr": warmup(), **options})
    run(rng, 2, opt)
    return opt


def assert_refused(opt, taken, message, error=ValueError):
    before = snapshot(opt)
    with pytest.raises(error, match=message):
        opt.rewind(taken)
    assert_unchanged(opt, before)


OTHERS = {
    "more groups": (
        {"sizes": (1, 1, 1)},
        "snapshot: has 3 parameter groups, the optimizer 2",
    ),
    "other sizes": (
        {"sizes": (1, 2)},
        "snapshot: group 0 has 1 parameters, the optimizer's 2",
    ),
    "another shape": (
        {"shapes": ((7, 5), (13,), (1,))},
        r"snapshot: parameter 2 is torch.float32 of shape \(1,\), the optimizer's torch.float32 "
        r"of shape \(\)",
    ),
    "the same elements": (
        {"shapes": ((5, 7), (13,), ())},
        r"snapshot: parameter 0 is torch.float32 of shape \(5, 7\), the optimizer's torch.float32 "
        r"of shape \(7, 5\)",
    ),
    "another dtype": (
        {"dtype": torch.bfloat16},
        "snapshot: parameter 0 is torch.bfloat16 of shape .* the optimizer's torch.float32",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_form_is_refused(rng, kind, name):
    options, message = OTHERS[name]
    assert_refused(made(rng, kind), made(rng, kind, **options).snapshot(), message)


def test_another_optimizer_is_refused(rng):
    for one in CLASSES:
        for other in CLASSES:
            if one is not other:
                message = f"snapshot: is of the optimizer '{one.cls.rule.name}', this one is"
                assert_refused(made(rng, other), made(rng, one).snapshot(), message)


@with_state
def test_a_state_of_another_dtype_is_refused(rng, kind):
    """Which a checkpoint may have brought."""
    opt = made(rng, kind)
    taken, saved, (key, *_) = opt.snapshot(), opt.state_dict(), kind.moments
    saved["state"][1][key] = saved["state"][1][key].double()
    opt.load_state_dict(saved)
    assert_refused(opt, taken, rf"snapshot: {key} of parameter 1 is torch.float32 .* torch.float64")


def test_products_that_were_not_kept_are_refused(rng):
    kind = FIRST
    opt, plain = made(rng, kind, bias_correction="product"), made(rng, kind)
    message = "group 0 has no lrfused_beta1_product, .* taken with another bias_correction"
    assert_refused(opt, plain.snapshot(), message)
    plain.rewind(opt.snapshot())  # which needs none


def test_a_value_that_a_tensor_cannot_hold_is_refused(rng, kind):
    opt = made(rng, kind, lr=0.25)
    taken = opt.snapshot()
    opt.param_groups[1]["lr"] = torch.tensor(1)
    taken.groups[1]["numbers"]["lr"] = torch.inf
    assert_refused(opt, taken, r"snapshot: lr of group 1 cannot be inf in torch.int64")


@pytest.mark.parametrize("other", [None, {}, "path", 3])
def test_what_is_no_snapshot_is_refused(rng, kind, other):
    assert_refused(made(rng, kind), other, "snapshot: must be a Snapshot, got", TypeError)


def test_state_that_does_not_fit_its_parameter_is_refused(rng):
    """In a file that was tampered with: a fresh optimizer would get it."""
    kind = FIRST
    taken = made(rng, kind).snapshot()
    taken.operands[1]["exp_avg"] = torch.zeros(4)
    params = make_parameters(rng, shapes=SHAPES)
    opt = lrfused.AdamW([{"params": params[:2]}, {"params": params[2:]}])
    with pytest.raises(ValueError, match=r"snapshot: exp_avg of a parameter of shape .* another"):
        opt.rewind(taken)
    assert not opt.state
    message = r"snapshot: exp_avg of parameter 1 is torch.float32 of shape \(4,\)"
    assert_refused(made(rng, kind), taken, message)


@pytest.mark.parametrize("name", ["counts", "carried"])
def test_counts_of_other_parameters_are_refused(rng, name):
    opt = made(rng, FIRST)
    taken = opt.snapshot()
    short = dataclasses.replace(taken, **{name: getattr(taken, name)[1:]})
    assert_refused(opt, short, rf"snapshot: {name} is torch.* of shape \(2,")


def test_an_invalid_number_in_a_group_is_refused_first(rng, kind):
    """It is the caller's to take back, as before a step."""
    opt = made(rng, kind)
    taken = opt.snapshot()
    opt.param_groups[0]["lr"] = "fast"
    weights = [p.detach().clone() for p in opt.param_groups[0]["params"]]
    with pytest.raises(TypeError, match="lr"):
        opt.rewind(taken)
    for p, q in zip(opt.param_groups[0]["params"], weights, strict=True):
        assert torch.equal(p, q)
