"""Parameters of which this process has a part only: what needs all gradients is refused.

FullyShardedDataParallel marks them by ``_fsdp_flattened``; of others the caller has to say it.
"""

import pytest
import torch
from lib.contract import assert_same_run, make_parameters, run, twin, warmup
from torch.nn import Parameter

from .edits import copied

GLOBAL = {
    "max_grad_norm": 1.0,
    "agc": 0.1,
    "loss_scale": "dynamic",
    "constant loss_scale": 8.0,
    "nonfinite": "skip",
    "raise": "raise",
    "always_measure": True,
}
NAMES = {"constant loss_scale": "loss_scale", "raise": "nonfinite"}
OPTIONS = [{NAMES.get(name, name): value} for name, value in GLOBAL.items()]
each = pytest.mark.parametrize("options", OPTIONS, ids=GLOBAL)
FLATTENED = r"params: a Parameter of shape \(7, 5\) was flattened by FullyShardedDataParallel; .*"
FLATTENED += r"max_grad_norm, agc, loss_scale, nonfinite.* say so with sharded=False"
PLAIN = {"clip_value": 0.5, "weight_decay_mode": "independent", "start_step": 1}


def marked(rng):
    """Parameters as FullyShardedDataParallel leaves them."""
    params = make_parameters(rng)
    for p in params:
        p._fsdp_flattened = True
    return params


@each
def test_what_needs_all_gradients_is_refused_at_construction(rng, kind, options):
    """max_grad_norm, agc, a loss scale, nonfinite, always_measure: each rank would clip by its own
    shard, and one might skip a step that another takes."""
    with pytest.raises(ValueError, match=FLATTENED):
        kind.ours(marked(rng), **options)
    with pytest.raises(ValueError, match=FLATTENED):
        kind.ours([{"params": make_parameters(rng)}, {"params": marked(rng)}], **options)
    names = [(f"p{i}", p) for i, p in enumerate(marked(rng))]
    with pytest.raises(ValueError, match=FLATTENED):
        kind.ours(names, **options)


@each
def test_it_is_refused_in_groups_that_come_later(rng, kind, options):
    """add_param_group, and a group put in by hand, at the next step: nothing has changed."""
    opt = kind.ours(make_parameters(rng), **options)
    with pytest.raises(ValueError, match=FLATTENED):
        opt.add_param_group({"params": marked(rng)})
    assert len(opt.param_groups) == 1
    run(rng, 2, opt)
    group = kind.theirs(marked(rng)).param_groups[0]
    opt.param_groups.append({**group, **({"agc": 0.1} if "agc" in options else {})})
    with pytest.raises(ValueError, match=r"param_groups\[1\]: " + FLATTENED):
        run(rng, 1, opt)
    opt.param_groups.pop()
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 3


def test_agc_of_one_group_concerns_that_group(rng, kind):
    """A group of its own with agc is refused where its parameters are marked, and others are left
    alone."""
    with pytest.raises(ValueError, match=FLATTENED):
        kind.ours([{"params": make_parameters(rng)}, {"params": marked(rng), "agc": 0.1}])
    opt = kind.ours(marked(rng))
    with pytest.raises(ValueError, match=FLATTENED):
        opt.add_param_group({"params": marked(rng), "agc": 0.1})
    run(rng, 1, opt)


def test_parameters_that_are_replaced_later_are_looked_at(rng, kind, backend):
    """group["params"] = marked ones, after construction, also of a copy of a group: the step that
    would use them is refused and leaves no state."""
    opt = kind.ours(make_parameters(rng), max_grad_norm=1.0, backend=backend)
    run(rng, 1, opt)
    new, old = marked(rng), opt.param_groups[0]["params"]
    for group in (opt.param_groups[0], copied(opt.param_groups[0])):
        opt.param_groups[0] = group
        group["params"] = new
        with pytest.raises(ValueError, match=FLATTENED):
            run(rng, 1, opt)
        assert not any(p in opt.state for p in new)
        group["params"] = old
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 2


@each
def test_the_callers_word_permits_it(rng, kind, backend, options):
    """sharded=False, for NO_SHARD and for one rank: as with parameters that are not marked."""
    params = marked(rng)
    opt = kind.ours(params, lr=warmup(), sharded=False, backend=backend, **options)
    opt.add_param_group({"params": marked(rng)})
    plain = kind.ours(twin(params), lr=warmup(), backend=backend, **options)
    plain.add_param_group({"params": twin(opt.param_groups[1]["params"])})
    run(rng, 3, opt, plain)
    assert_same_run(opt, plain)
    assert opt.metrics() == plain.metrics()


@each
def test_the_callers_word_refuses_it(rng, kind, options):
    """sharded=True, for ZeroRedundancyOptimizer and others that leave no mark."""
    message = r"params: a Parameter of shape \(7, 5\) is spread over several ranks \(sharded=True\)"
    with pytest.raises(ValueError, match=message):
        kind.ours(make_parameters(rng), sharded=True, **options)


@pytest.mark.parametrize("sharded", [None, True, False])
def test_what_a_parameter_decides_alone_is_not_refused(rng, kind, backend, sharded):
    """No option, and those that look at one element or at the step: clip_value, start_step, ..."""
    for options in ({}, PLAIN, {"lr": warmup(), "accumulation_steps": 2, "write_grads": True}):
        params = marked(rng)
        opt = kind.ours(params, sharded=sharded, backend=backend, **options)
        plain = kind.ours(twin(params), backend=backend, **options)
        run(rng, 3, opt, plain)
        assert_same_run(opt, plain)


def test_parameters_of_several_kinds_are_told_by_shape(rng, kind):
    """The error names the first that is marked."""
    params = [*make_parameters(rng), Parameter(torch.ones(3, 1, 2))]
    params[-1]._fsdp_flattened = True
    with pytest.raises(ValueError, match=r"params: a Parameter of shape \(3, 1, 2\) was flattened"):
        kind.ours(params, max_grad_norm=1.0)


@pytest.mark.parametrize("value", ["x", 1, 0, "no", 2.0])
def test_anything_else_is_no_word(rng, kind, value):
    """sharded: True, False or None."""
    with pytest.raises(TypeError, match="sharded: must be True or False, got"):
        kind.ours(make_parameters(rng), sharded=value)
