"""Masks: kept weights move as if the others were not there, masked ones stay 0."""

import pytest
import torch
from lib.options import over_every_option, single_options
from lib.runs import (
    DTYPES,
    advance,
    assert_same_bits,
    contents,
    random_problem,
    start,
    words,
)

import lrfused
from lrfused.state.device_state import FIRST_FLOAT, Field

from .riding import random_mask, random_masks, run_masked, set_masks, shown

SHAPES = [(), (3,), (5, 13), (65,), (3, 2, 2, 2)]
BAD_VALUES = (float("inf"), float("-inf"), float("nan"), 3.0)
STATE = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "lrfused_average")


def spoiled(rng, problem, masks):
    """The problem with anything in the masked gradients."""

    def change(i, g):
        if g is None or i not in masks:
            return g
        choice = torch.tensor(BAD_VALUES, dtype=torch.float64)
        bad = choice[torch.randint(len(choice), g.shape, generator=rng.torch)].to(g.dtype)
        return torch.where(masks[i], g, bad)

    steps = [[change(i, g) for i, g in enumerate(step)] for step in problem.gradients]
    return type(problem)(problem.values, steps)


def zeroed(problem, masks):
    """The problem with zeros where it is masked: weights and gradients."""

    def change(i, x):
        return x if x is None or i not in masks else torch.where(masks[i], x, torch.zeros_like(x))

    values = [change(i, value) for i, value in enumerate(problem.values)]
    return type(problem)(
        values, [[change(i, g) for i, g in enumerate(s)] for s in problem.gradients]
    )


@over_every_option
def test_kept_weights_move_as_with_zeros_in_the_masked_places(backend, rule, rng, name):
    """What stands in masked gradients is no part of anything: the metrics are those of zeros."""
    options = {k: v for k, v in single_options(rule)[name].items() if k != "masks"}
    problem = random_problem(rng, SHAPES, 4 if backend == "triton" else 12, DTYPES)
    masks = random_masks(rng, problem.values)
    got = run_masked(spoiled(rng, problem, masks), masks, backend, **options)
    plain = start(zeroed(problem, masks).values, backend, **options)
    for gradients in zeroed(problem, masks).gradients:
        advance(plain, gradients)
    assert shown(got.metrics) == shown(plain.metrics)
    mine, others = contents(got), contents(plain)
    assert mine.keys() == others.keys()
    for key, tensor in mine.items():
        at = int(key.partition("[")[2][:-1] or -1)
        if at not in masks or not key.startswith(("p[", "grad[", *STATE)):
            assert_same_bits(tensor, others[key], key)
            continue
        mask = masks[at]
        if not key.startswith("grad") or options.get("write_grads"):
            assert_same_bits(tensor[mask], others[key][mask], key)
            assert_same_bits(tensor[~mask], torch.zeros_like(tensor[~mask]), key)
    mine, others = words(got), words(plain)
    assert_same_bits(mine["integer words"], others["integer words"])
    kept = [i for i in range(len(mine["float words"])) if i + FIRST_FLOAT != Field.TINY_GRADIENTS]
    assert_same_bits(mine["float words"][kept], others["float words"][kept])


def test_the_share_of_tiny_gradients_is_of_what_is_kept(backend, rng):
    """Over chunks, and where the last word of bits is not full."""
    sizes = (70_003, 65) if backend != "triton" else (1_100, 65)
    values = [torch.zeros(size) for size in sizes]
    masks = {i: torch.rand(size, generator=rng.torch) < 0.4 for i, size in enumerate(sizes)}
    gradients = [torch.randn(size, generator=rng.torch) for size in sizes]
    for g in gradients:
        g[torch.rand(len(g), generator=rng.torch) < 0.3] = 0.0
    made = start(values, backend, always_measure=True)
    set_masks(made, masks)
    advance(made, gradients)
    kept = torch.cat([g[masks[i]] for i, g in enumerate(gradients)])
    want = int((kept == 0).sum()) / len(kept)
    assert made.metrics[-1]["tiny_gradients"] == want
    set_masks(made, {i: torch.zeros_like(mask) for i, mask in masks.items()})
    advance(made, gradients)
    assert made.metrics[-1]["tiny_gradients"] is None


def test_a_masked_vector_is_a_shorter_one(backend, rule, rng):
    """Elementwise updates: the kept elements alone give the same bits."""
    problem = random_problem(rng, [(200,)], 5, none=0.0)
    mask = torch.rand(200, generator=rng.torch) < 0.5
    got = run_masked(problem, {0: mask}, backend)
    shorter = type(problem)(
        [problem.values[0][mask]], [[g[mask] for g in step] for step in problem.gradients]
    )
    want = run_masked(shorter, {}, backend)
    assert_same_bits(got.params[0].detach()[mask], want.params[0].detach())
    for key in STATE:
        if key in want.opt.state[want.params[0]]:
            mine, other = (x.opt.state[x.params[0]][key] for x in (got, want))
            assert_same_bits(mine[mask], other, key)


@pytest.mark.parametrize("layout", ["transposed", "channels last", "strided", "complex"])
def test_a_mask_belongs_to_elements_not_to_memory(backend, rng, layout):
    value = torch.randn((3, 5, 2, 4), generator=rng.torch)
    mask = torch.rand(value.shape, generator=rng.torch) < 0.5
    if layout == "transposed":
        value = value.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    elif layout == "channels last":
        value = value.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        value = torch.randn((3, 5, 2, 8), generator=rng.torch)[..., ::2]
    else:
        value = torch.complex(value, torch.randn(value.shape, generator=rng.torch))
    made = start([value], backend, max_grad_norm=1.0, ema_decay=0.5)
    set_masks(made, {0: mask})
    before = made.params[0].detach().clone()
    for _ in range(2):
        advance(made, [torch.ones_like(value)])
    p = made.params[0].detach()
    assert bool((p[~mask] == 0).all())
    assert bool((p[mask] != before[mask]).all())
    assert_same_bits(made.opt.masks[made.params[0]], mask)
    average = made.opt.state[made.params[0]]["lrfused_average"]
    assert bool((average[~mask] == 0).all())


def test_with_clips_by_unit(backend, rng):
    """Of units that begin in the middle of a word of bits."""
    problem = random_problem(rng, [(7, 13), (5, 3, 3)], 4, none=0.0)
    masks = {i: random_mask(rng, value) for i, value in enumerate(problem.values)}
    options = {"agc": 0.02, "clip_value": 0.5, "max_grad_norm": 0.3}
    got = run_masked(spoiled(rng, problem, masks), masks, backend, **options)
    plain = start(zeroed(problem, masks).values, backend, **options)
    for gradients in zeroed(problem, masks).gradients:
        advance(plain, gradients)
    assert shown(got.metrics) == shown(plain.metrics)
    for p, q, mask in zip(got.params, plain.params, masks.values(), strict=True):
        assert_same_bits(p.detach()[mask], q.detach()[mask])
        assert not p.detach()[~mask].any()


def test_all_masked(backend, rng):
    """Nothing is left to skip or to raise for."""
    made = start([torch.ones(70), torch.ones(())], backend, nonfinite="raise", max_grad_norm=1.0)
    set_masks(made, {i: torch.zeros_like(p, dtype=torch.bool) for i, p in enumerate(made.params)})
    advance(made, [torch.full((70,), torch.nan), torch.tensor(torch.inf)])
    assert made.metrics[-1]["grad_norm"] == 0.0
    for p in made.params:
        assert_same_bits(p.detach(), torch.zeros_like(p))


# Set, changed, taken away


def test_setting_a_mask_makes_weights_and_state_zero_at_once(backend, rng):
    problem = random_problem(rng, [(33,)], 3, none=0.0)
    made = start(problem.values, backend, ema_decay=0.5)
    advance(made, problem.gradients[0])
    mask = torch.rand(33, generator=rng.torch) < 0.5
    before = contents(made)
    set_masks(made, {0: mask})
    for key, tensor in contents(made).items():
        if key.startswith(("p[", *STATE)):
            assert_same_bits(tensor[mask], before[key][mask], key)
            assert_same_bits(tensor[~mask], torch.zeros_like(tensor[~mask]), key)
    assert_same_bits(made.opt.masks[made.params[0]], mask)


def test_masks_change_between_steps(backend, rng):
    """Set, replaced, taken away: the same as zeroing by hand at each step."""
    problem = random_problem(rng, [(65,), (9,)], 9, none=0.0)
    made, plain = (start(problem.values, backend, max_grad_norm=0.5) for _ in "ab")
    masks = [None, *(torch.rand(65, generator=rng.torch) < 0.6 for _ in range(3)), None]
    for step, gradients in enumerate(problem.gradients):
        mask = masks[step // 2]
        if step % 2 == 0:
            set_masks(made, {0: mask})
        kept = torch.ones(65, dtype=torch.bool) if mask is None else mask
        advance(made, gradients)
        for tensor in (plain.params[0], *plain.opt.state.get(plain.params[0], {}).values()):
            if tensor.shape == kept.shape:
                tensor.data.mul_(kept)
        advance(plain, [gradients[0] * kept, gradients[1]])
        want = plain.params[0].detach().masked_fill(~kept, 0)
        assert_same_bits(made.params[0].detach(), want)
        assert_same_bits(made.params[1].detach(), plain.params[1].detach())
        assert shown(made.metrics[-1:]) == shown(plain.metrics[-1:])
    assert made.opt.masks == {}


def test_masks_of_the_constructor():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    opt = lrfused.AdamW([weight], masks={weight: torch.tensor([True, False])})
    assert weight.tolist() == [1.0, 0.0]
    opt.masks[weight].fill_(True)  # a copy
    assert opt.masks[weight].tolist() == [True, False]
    opt.set_masks({weight: None})
    weight.grad = torch.ones(2)
    opt.step()
    assert weight[1] != 0.0


def test_a_parameter_that_moves_to_other_memory_keeps_its_mask(backend, rng):
    """Of another layout: the bits are put in its order."""
    value = torch.randn((4, 6), generator=rng.torch)
    made = start([value], backend)
    mask = torch.rand((4, 6), generator=rng.torch) < 0.5
    set_masks(made, {0: mask})
    advance(made, [torch.ones(4, 6)])
    made.params[0].data = made.params[0].data.t().contiguous().t()
    advance(made, [torch.ones(4, 6)])
    assert not made.params[0].detach()[~mask].any()
    assert made.params[0].detach()[mask].all()
    assert_same_bits(made.opt.masks[made.params[0]], mask)


# Arguments

WEIGHT = torch.nn.Parameter(torch.ones(2, 3))
GOOD = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ([GOOD], TypeError, "dictionary"),
        ({WEIGHT: GOOD.float()}, TypeError, "bools"),
        ({WEIGHT: [True, False]}, TypeError, "bools"),
        ({WEIGHT: GOOD[0]}, ValueError, r"shape, got \(3,\)"),
        ({WEIGHT: GOOD.to("meta")}, ValueError, "device"),
        ({torch.nn.Parameter(torch.ones(2, 3)): GOOD}, ValueError, "not a parameter"),
        ({"weight": GOOD}, ValueError, "not a parameter"),
    ],
)
def test_bad_masks_are_refused_before_anything_changes(masks, error, message):
    other = torch.nn.Parameter(torch.ones(3))
    opt = lrfused.AdamW([WEIGHT, other])
    given = masks if isinstance(masks, list) else {other: torch.zeros(3, dtype=torch.bool), **masks}
    with pytest.raises(error, match=message):
        opt.set_masks(given)
    with pytest.raises(error, match=message):
        lrfused.AdamW([WEIGHT, other], masks=given)
    assert opt.masks == {}
    assert bool((other == 1).all())
    assert bool((WEIGHT == 1).all())
